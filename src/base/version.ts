/** The version in package.json, the same from src/base and dist/base. */
import { createRequire } from 'node:module';

export const version = (createRequire(import.meta.url)('../../package.json') as { readonly version: string })
  .version;
