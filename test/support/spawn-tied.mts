// Starts a child that is tied to this process, prints its pid and waits.
import { spawnTied } from "../../src/actors/process/run-child.actor.ts";

const child = spawnTied(process.execPath, ["-e", "setInterval(() => {}, 1000)"], {});
process.stdout.write(`${child.pid}\n`);
