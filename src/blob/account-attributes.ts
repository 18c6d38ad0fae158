/**
 * What an account with a hierarchical namespace keeps of a file or directory beside its metadata: owner, group,
 * permissions, ACL and type, in listings and look-ups (azurite 4).
 */
import { accountIdOf } from './account-ids.js';
import { kindOf, posixOf, textMode } from './metadata.js';
import type { BlobKind, PosixAttributes } from './port.js';
import { posixAclsOf } from './posix-acl.js';

/** As the service writes them; all absent on flat accounts. */
export interface AccountAttributes {
  readonly owner?: string | undefined;
  readonly group?: string | undefined;
  /** `rwxr-x--T`, with a `+` behind it where the ACL says more. */
  readonly permissions?: string | undefined;
  /** `user::rwx,group::r-x,other::---`, `default:` entries included; absent from old service versions. */
  readonly acl?: string | undefined;
  /** `file` or `directory`. */
  readonly resourceType?: string | undefined;
}

/** The attributes in the headers of a look-up. */
export function accountAttributesOf(header: (name: string) => string | undefined): AccountAttributes {
  return {
    owner: header('x-ms-owner'),
    group: header('x-ms-group'),
    permissions: header('x-ms-permissions'),
    acl: header('x-ms-acl'),
    resourceType: header('x-ms-resource-type'),
  };
}

/** What a blob stands for: the account knows its directories, metadata tells the rest. Keys in lower case. */
export function accountKindOf(
  { resourceType }: AccountAttributes,
  metadata: Readonly<Record<string, string>>,
  size: number,
): BlobKind {
  return resourceType === 'directory' ? 'directory' : kindOf(metadata, size);
}

/**
 * The attributes of a blob, one by one from its metadata, else from the account: an export writes metadata only, since
 * no Blob request sets the account's, and an import has to read back what it wrote. The access ACL goes with the
 * permissions that it is part of. `accountFirst`: metadata counts only where the account is silent. Keys in lower case.
 */
export function accountPosixOf(
  { owner, group, permissions, acl }: AccountAttributes,
  metadata: Readonly<Record<string, string>>,
  accountFirst: boolean,
): PosixAttributes {
  const posix: { -readonly [Key in keyof PosixAttributes]: PosixAttributes[Key] } = posixOf(metadata);
  if (accountFirst) {
    if (owner !== undefined) delete posix.uid;
    if (group !== undefined) delete posix.gid;
    if (permissions !== undefined) delete posix.mode;
  }
  const mode = posix.mode === undefined ? textMode(permissions) : undefined;
  if (mode !== undefined) posix.mode = mode;
  if (acl !== undefined && acl !== '') {
    const acls = posixAclsOf(acl);
    posix.acls = { access: mode === undefined ? null : acls.access, default: acls.default };
    if (mode !== undefined && acls.mode !== undefined) posix.mode = (mode & ~0o777) | acls.mode;
    if (acls.unmapped !== undefined) posix.unmapped = acls.unmapped;
  }
  const names = { uid: owner, gid: group } as const;
  for (const key of ['uid', 'gid'] as const) {
    const name = names[key];
    if (posix[key] !== undefined || name === undefined || name === '') continue;
    const id = accountIdOf(name);
    if (id === undefined) posix.unmapped ??= name;
    else posix[key] = id;
  }
  return posix;
}
