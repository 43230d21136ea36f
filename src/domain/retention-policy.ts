// Which whole backups a policy keeps. Rules as Kopia has them, decided on whole backups.

/** A rule that is undefined takes the default; 0 switches it off. */
export type RetentionRules = {
  keepLatest?: number;
  keepHourly?: number;
  keepDaily?: number;
  keepWeekly?: number;
  keepMonthly?: number;
  keepAnnual?: number;
};
