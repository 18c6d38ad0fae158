/** Events of the change feed: what they say, and about which blob. */
import { z } from 'zod';

/** One change of one blob. */
export interface ChangeEvent {
  /** `BlobCreated`, `BlobDeleted`, …; newer services know more of them. */
  readonly type: string;
  /** `/blobServices/default/containers/C/blobs/NAME` */
  readonly subject: string;
  /** By the service's clock, ms since the epoch. */
  readonly timeMs: number;
}

/** The fields that are read; every schema version has them (azurite 3). */
const record = z
  .object({ eventType: z.string(), subject: z.string(), eventTime: z.iso.datetime({ offset: true }) })
  .transform(({ eventType, subject, eventTime }): ChangeEvent => ({
    type: eventType,
    subject,
    timeMs: Date.parse(eventTime),
  }));

/** A decoded record as an event; throws where a field is missing or means something else. */
export function eventOf(decoded: unknown): ChangeEvent {
  return record.parse(decoded);
}

/**
 * Event types after which a blob has the content and metadata that it had before. Any other, an unknown one too, makes
 * the blob worth a look.
 */
const unchanging: ReadonlySet<string> = new Set([
  // Internal to the feed, about no blob.
  'Control',
  'RestorePointMarkerCreated',
  // About another object than the blob itself.
  'BlobSnapshotCreated',
  // The ETag stays.
  'BlobTierChanged',
  'BlobLastAccessTimeUpdated',
]);

/** The blob of this container that the event may have changed. */
export function changedBlob({ type, subject }: ChangeEvent, container: string): string | undefined {
  const start = `/blobServices/default/containers/${container}/blobs/`;
  return !unchanging.has(type) && subject.startsWith(start) ? subject.slice(start.length) : undefined;
}
