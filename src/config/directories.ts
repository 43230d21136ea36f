// Each directory of a server is one thing's own: whatever else lies in it would be written over, or taken for a part of it.
type Directory = { key: string; path: string };

/** In these every name means something: another's directory would be a cluster, or no repository. */
export const wholeDirectories: readonly string[] = ["tier1.wal.path", "tier1.base.repository"];

/** As the system reads it, with a slash at its end: without empty steps, and without steps back. */
function plain(path: string): string {
  const steps: string[] = [];
  for (const step of path.split("/"))
    if (step === "..") steps.pop();
    else if (step !== "" && step !== ".") steps.push(step);
  return `/${steps.join("/")}/`;
}

/** `path`: absolute. */
export function directoryFaults(directories: readonly Directory[]) {
  return directories.flatMap(({ key, path }, n) => {
    const own = plain(path);
    const twin = directories.slice(0, n).find((other) => plain(other.path) === own);
    const outer = directories.find(
      (other) => wholeDirectories.includes(other.key) && plain(other.path) !== own && own.startsWith(plain(other.path)),
    );
    if (twin === undefined && outer === undefined) return [];
    const problem = twin === undefined ? `must not lie inside ${outer?.key}` : `must differ from ${twin.key}`;
    return [{ key, value: JSON.stringify(path), problem }];
  });
}
