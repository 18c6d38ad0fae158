/** Whether an auto-import reads the change feed or compares listings. */
import { BlobError, messageChain, UserError } from '../../base/errors.js';
import { ChangeFeed } from '../../blob/change-feed.js';
import type { Container } from '../../blob/port.js';
import type { ChangeSourceKind } from './auto-import-record.js';

export interface SourceQuestion {
  /** What somebody asked for; undefined: what suits the account. */
  readonly wanted: ChangeSourceKind | undefined;
  readonly container: Pick<Container, 'changeFeed'>;
  /** Such accounts have no change feed. */
  readonly hierarchical: boolean;
  readonly signal: AbortSignal;
}

export interface SourceChoice {
  readonly changeSource: ChangeSourceKind;
  /** For people. */
  readonly changeSourceReason: string;
}

/**
 * UserError `InvalidParameter` with the setting to change where the feed was asked for and cannot be read, `Unreachable`
 * where the account does not answer.
 */
export async function chooseSource({
  wanted,
  container,
  hierarchical,
  signal,
}: SourceQuestion): Promise<SourceChoice> {
  if (wanted === 'listing') return { changeSource: 'listing', changeSourceReason: 'as asked for' };
  const obstacle = hierarchical
    ? {
        why: 'the account has a hierarchical namespace',
        remedy:
          'such accounts have no change feed: take --source listing, or an account without isHnsEnabled',
      }
    : await feedObstacle(container, signal);
  if (obstacle === undefined)
    return {
      changeSource: 'feed',
      changeSourceReason: wanted === 'feed' ? 'as asked for' : 'the account has one',
    };
  if (wanted === undefined) return { changeSource: 'listing', changeSourceReason: obstacle.why };
  const message = `--source feed: ${obstacle.why}; ${obstacle.remedy}`;
  throw new UserError('InvalidParameter', message, { cause: obstacle.cause });
}

interface Obstacle {
  readonly why: string;
  readonly remedy: string;
  readonly cause?: unknown;
}

/** Why the change feed cannot be read. How long it is kept only Azure's management API tells, which needs other rights. */
async function feedObstacle(
  container: Pick<Container, 'changeFeed'>,
  signal: AbortSignal,
): Promise<Obstacle | undefined> {
  try {
    await new ChangeFeed(container.changeFeed()).consumable(signal);
    return undefined;
  } catch (error) {
    if (!(error instanceof BlobError)) throw error;
    switch (error.kind) {
      case 'missing':
        return {
          why: 'the account has no change feed ($blobchangefeed)',
          remedy:
            "enable it (changeFeed.enabled of the account's blob service, with changeFeed.retentionInDays of 7 or more or " +
            'none) and wait some minutes, or take --source listing',
          cause: error,
        };
      case 'forbidden':
        return {
          why: "the credentials do not reach the account's change feed ($blobchangefeed)",
          remedy:
            'give a SAS of the account (not of the container) or a role that reads $blobchangefeed, or take --source listing',
          cause: error,
        };
      case 'corrupt':
        return {
          why: messageChain(error),
          remedy: 'take --source listing',
          cause: error,
        };
      default:
        throw new UserError(
          'Unreachable',
          'whether the account has a change feed could not be asked: try again, or take --source listing, which waits for the account',
          { status: 502, cause: error },
        );
    }
  }
}
