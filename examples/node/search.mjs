// What the Node.js snippets of Milvus's page "Conduct a Vector Similarity Search" do, with nearmq:
//   NEARMQ_URL=amqp://... node search.mjs COLLECTION [FIELD] [PARTITION]
// The collection has vectors of 8 dimensions under the metric L2.

import { NearmqClient } from "./nearmq.mjs";

const [COLLECTION_NAME = "example", FIELD_NAME = "vector", partition_name] = process.argv.slice(2);
const nearmqClient = await NearmqClient.connect(process.env.NEARMQ_URL ?? "amqp://guest:guest@localhost:5672/");

const searchParams = {
  anns_field: FIELD_NAME,
  topk: "4",
  metric_type: "L2",
  params: JSON.stringify({ nprobe: 10 }),
};

await nearmqClient.loadCollection({
  collection_name: COLLECTION_NAME,
});

const whole = await nearmqClient.search({
  collection_name: COLLECTION_NAME,
  // partition_names: [],
  expr: "",
  vectors: [[1, 2, 3, 4, 5, 6, 7, 8]],
  search_params: searchParams,
});
console.log(JSON.stringify(whole));

if (partition_name) {
  const part = await nearmqClient.search({
    collection_name: COLLECTION_NAME,
    partition_names: [partition_name],
    expr: "",
    vectors: [[1, 2, 3, 4, 5, 6, 7, 8]],
    search_params: searchParams,
  });
  console.log(JSON.stringify(part));
}

await nearmqClient.releaseCollection({
  collection_name: COLLECTION_NAME,
});
await nearmqClient.close();
