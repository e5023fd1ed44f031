// A client for nearmq in the few calls that Milvus's Node.js pages use, over amqplib. The wire contract is docs/wire.md.

import { randomBytes } from "node:crypto";
import amqp from "amqplib";

// After the first worker's answer to a job for all workers, how long others may take to show that they live.
const GATHER_MS = 250;

export class NearmqError extends Error {
  constructor({ code, message, field, retryable }) {
    super(`${code}: ${message}`);
    Object.assign(this, { code, field, retryable: retryable ?? false });
  }
}

export class NearmqClient {
  static async connect(url, { prefix = "nearmq", timeoutMs = 30_000 } = {}) {
    const client = new NearmqClient();
    client.exchange = `${prefix}.jobs`;
    client.timeoutMs = timeoutMs;
    client.pending = new Map(); // job id -> called with each reply, or with an error
    client.connection = await amqp.connect(url);
    client.channel = await client.connection.createConfirmChannel();
    client.channel.on("return", (message) => {
      client.pending.get(message.properties.messageId)?.(new Error(`nobody takes ${message.fields.routingKey}: no worker is live`));
    });
    const { queue } = await client.channel.assertQueue(`reply.node.${uuidv7()}`, { expires: 600_000 });
    client.replyTo = queue;
    const parts = new Map(); // message id of a reply in parts -> its bodies so far
    await client.channel.consume(
      queue,
      (message) => {
        if (message === null) return client.failAll(new Error("the reply queue was deleted"));
        const body = wholeBody(parts, message);
        if (body) client.pending.get(message.properties.correlationId)?.(null, JSON.parse(body));
      },
      { noAck: true },
    );
    return client;
  }

  // Search, in the shape of Milvus's dataManager.search; returns {version, results: [[{id, distance}, ...] a query]}.
  async search({ collection_name, partition_names, expr, vectors, search_params }) {
    const reply = await this.request("search", {
      collection: collection_name,
      vectors,
      limit: Number(search_params.topk),
      ...(search_params.anns_field && { field: search_params.anns_field }),
      ...(search_params.metric_type && { metric_type: search_params.metric_type }),
      params: JSON.parse(search_params.params ?? "{}"),
      ...(partition_names?.length && { partition_names }),
      ...(expr && { expr }),
      id_format: "string", // JavaScript's numbers cannot hold an int64
    });
    const results = reply.hits.map(({ ids, distances }) => ids.map((id, rank) => ({ id, distance: distances[rank] })));
    return { version: reply.version, results };
  }

  // Load on every live worker, and wait until all that answered have finished; returns their replies.
  loadCollection({ collection_name }) {
    return this.requestAll("load", { collection: collection_name });
  }

  releaseCollection({ collection_name }) {
    return this.requestAll("release", { collection: collection_name });
  }

  async close() {
    await this.channel.deleteQueue(this.replyTo);
    await this.connection.close();
  }

  request(type, body) {
    return this.publish(type, body, (reply, settle) => settle(reply));
  }

  requestAll(type, body) {
    const replies = new Map();
    let gathering = true;
    return this.publish(type, body, (reply, settle) => {
      const finish = () => {
        if (!gathering && [...replies.values()].every(({ status }) => status !== "partial")) settle([...replies.values()]);
      };
      if (replies.size === 0) setTimeout(() => ((gathering = false), finish()), GATHER_MS);
      replies.set(reply.worker, reply);
      finish();
    });
  }

  // Publish a job; onReply(reply, settle) sees each reply until it settles. Rejects on an error reply and on time-out.
  publish(type, body, onReply) {
    const jobId = uuidv7();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => end(new Error(`no reply to job ${jobId} in ${this.timeoutMs} ms`)), this.timeoutMs);
      const end = (error, result) => {
        clearTimeout(timer);
        this.pending.delete(jobId);
        if (error) reject(error);
        else resolve(result);
      };
      this.pending.set(jobId, (error, reply) => {
        if (error) end(error);
        else if (reply.error) end(new NearmqError(reply.error));
        else onReply(reply, (result) => end(null, result));
      });
      const options = {
        type,
        messageId: jobId,
        correlationId: jobId,
        replyTo: this.replyTo,
        contentType: "application/json",
        persistent: true,
        mandatory: true,
        headers: { "nearmq-deadline": Date.now() + this.timeoutMs },
      };
      const routingKey = body.collection ? `${type}.${body.collection}` : type;
      this.channel.publish(this.exchange, routingKey, Buffer.from(JSON.stringify(body)), options, (error) => error && end(error));
    });
  }

  failAll(error) {
    for (const settle of [...this.pending.values()]) settle(error);
  }
}

// A long reply comes in parts; those of one reply share its message id. Returns the body once it is whole.
function wholeBody(parts, message) {
  const header = message.properties.headers?.["nearmq-part"];
  if (!header) return message.content;
  const [number, count] = header.split("/").map(Number);
  const slices = parts.get(message.properties.messageId) ?? new Map();
  parts.set(message.properties.messageId, slices.set(number, message.content));
  if (slices.size < count) return null;
  parts.delete(message.properties.messageId);
  return Buffer.concat([...slices.entries()].sort(([a], [b]) => a - b).map(([, slice]) => slice));
}

// RFC 9562, section 5.7: the time in milliseconds, then random bits.
function uuidv7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
