/** The states of a backup in which a process may end, as `klio backup run` tells them. */
export const backupStates = [
  "running.starting",
  "running.copyingTablespaces",
  "running.copyingData",
  "running.copyingControlFile",
  "running.stopping",
  "running.storingManifest",
  "running.awaitingWal.closing",
  "verifying.reading",
  "maintaining.working",
] as const;
