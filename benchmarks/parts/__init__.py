"""What is measured, a module each: `run(stage)` returns its findings, and its docstring says what is compared."""
