// Everything under docs/ that follows from the sources, but for the command line, whose program loads all of Klio.
import { readFileSync } from "node:fs";
import { layoutChart } from "../../src/console/chart-layout.ts";
import { chartSvg } from "../../src/console/chart-svg.ts";
import { loadMachines, machinesSection } from "./machines.ts";
import { replaceGenerated } from "./markdown.ts";
import { promisesTable } from "./promises.ts";
import { errorsPage, optionsPage, telemetryPage } from "./reference.ts";

const architecture = new URL("../../docs/architecture.md", import.meta.url);

/** Text by path from the root of the repository. The same sources give the same bytes everywhere. */
export async function generatePages(): Promise<Map<string, string>> {
  const machines = await loadMachines();
  const written = readFileSync(architecture, "utf8");
  const pages = new Map([
    [
      "docs/architecture.md",
      replaceGenerated(
        replaceGenerated(written, "promises", promisesTable(written)),
        "machines",
        machinesSection(machines),
      ),
    ],
    ["docs/reference/errors.md", errorsPage()],
    ["docs/reference/options.md", optionsPage()],
    ["docs/reference/telemetry.md", telemetryPage(machines)],
  ]);
  for (const { file, chart } of machines)
    pages.set(`docs/machines/${file}.svg`, chartSvg(await layoutChart(chart), { standalone: true }));
  return pages;
}
