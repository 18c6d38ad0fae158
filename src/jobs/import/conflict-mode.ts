/** How an import treats what is in its way, in ARM's words. */
export const conflictModes = ['Fail', 'Skip', 'OverwriteIfDirty', 'OverwriteAlways'] as const;
export type ConflictMode = (typeof conflictModes)[number];
