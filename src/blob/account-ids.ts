/** Whom an account with a hierarchical namespace means. */
import { idOf } from './metadata.js';

/** The id of an owner, a group or somebody in an ACL; undefined for names, such as Entra object ids. */
export function accountIdOf(name: string): number | undefined {
  // The account itself, which owns what nobody else was given.
  return name === '$superuser' ? 0 : idOf(name);
}
