/**
 * ACLs as an account with a hierarchical namespace writes them (`user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::---`,
 * entries of the default ACL with `default:` in front), and as Linux keeps them in extended attributes
 * (linux/posix_acl_xattr.h).
 */
import { accountIdOf } from './account-ids.js';

export interface PosixAcls {
  /** Null: the mode says all. */
  readonly access: Buffer | null;
  /** Of directories: what is made in them gets it. */
  readonly default: Buffer | null;
  /** The permission bits that the access ACL has a say in; only where there is one. */
  readonly mode?: number;
  /** The first entry that is left out, since it is for nobody who has a number, or the text when it is no ACL. */
  readonly unmapped?: string;
}

interface Entry {
  readonly tag: number;
  readonly permissions: number;
  readonly id: number;
}

const tags = { user: 0x01, namedUser: 0x02, group: 0x04, namedGroup: 0x08, mask: 0x10, other: 0x20 } as const;
const xattrVersion = 2;
const noId = 0xffff_ffff;
const entryPattern = /^(default:)?(user|group|mask|other):([^:]*):([-r])([-w])([-xtT])$/;

/** A container has few different ones. */
const known = new Map<string, PosixAcls>();
const knownLimit = 1000;

/** The ACLs in the text. What is no whole ACL is left out and named. */
export function posixAclsOf(text: string): PosixAcls {
  const found = known.get(text);
  if (found !== undefined) return found;
  const acls = parsed(text);
  if (known.size < knownLimit) known.set(text, acls);
  return acls;
}

function parsed(text: string): PosixAcls {
  const lists: Record<'access' | 'default', Entry[]> = { access: [], default: [] };
  let unmapped: string | undefined;
  for (const item of text.split(',')) {
    const [, inherited, kind = '', name = '', read, write, execute] = entryPattern.exec(item.trim()) ?? [];
    const id = name === '' ? noId : accountIdOf(name);
    const tag = tagOf(kind, name !== '');
    if (tag === undefined) return { access: null, default: null, unmapped: text };
    if (id === undefined) {
      unmapped ??= item;
      continue;
    }
    const permissions =
      (read === 'r' ? 4 : 0) | (write === 'w' ? 2 : 0) | (execute === 'x' || execute === 't' ? 1 : 0);
    lists[inherited === undefined ? 'access' : 'default'].push({ tag, permissions, id });
  }
  const whole = isWhole(lists.access) && (lists.default.length === 0 || isWhole(lists.default));
  if (!whole) return { access: null, default: null, unmapped: text };
  const extended = lists.access.some(({ tag }) => tag === tags.mask);
  return {
    access: extended ? encoded(lists.access) : null,
    default: lists.default.length === 0 ? null : encoded(lists.default),
    ...(extended && { mode: modeOf(lists.access) }),
    ...(unmapped !== undefined && { unmapped }),
  };
}

function tagOf(kind: string, named: boolean): number | undefined {
  if (kind === 'user') return named ? tags.namedUser : tags.user;
  if (kind === 'group') return named ? tags.namedGroup : tags.group;
  if (named) return undefined;
  return kind === 'mask' ? tags.mask : kind === 'other' ? tags.other : undefined;
}

/** What the kernel accepts: owner, group and others once each, and a mask where there is more. */
function isWhole(entries: readonly Entry[]): boolean {
  const count = (wanted: number): number => entries.filter(({ tag }) => tag === wanted).length;
  const named = count(tags.namedUser) + count(tags.namedGroup);
  const masks = count(tags.mask);
  const base = [tags.user, tags.group, tags.other].every((tag) => count(tag) === 1);
  return base && masks <= 1 && (named === 0 || masks === 1);
}

function modeOf(entries: readonly Entry[]): number {
  const of = (wanted: number): number => entries.find(({ tag }) => tag === wanted)?.permissions ?? 0;
  return (of(tags.user) << 6) | (of(tags.mask) << 3) | of(tags.other);
}

function encoded(entries: readonly Entry[]): Buffer {
  const value = Buffer.alloc(4 + 8 * entries.length);
  value.writeUInt32LE(xattrVersion);
  for (const [at, { tag, permissions, id }] of entries
    .toSorted((a, b) => a.tag - b.tag || a.id - b.id)
    .entries()) {
    value.writeUInt16LE(tag, 4 + 8 * at);
    value.writeUInt16LE(permissions, 6 + 8 * at);
    value.writeUInt32LE(id, 8 + 8 * at);
  }
  return value;
}
