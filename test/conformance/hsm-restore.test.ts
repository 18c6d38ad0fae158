import t from 'tap';
import { readers } from './readers.js';
import { restore } from './restore.js';
import { conform } from './theme.js';

// Bigger files come in ranges of this size, one after the other.
await conform(t, [restore, readers], {
  LUSTRITE_HYDRATE_RANGE_BYTES: String(2 ** 20),
  LUSTRITE_HYDRATE_PARALLEL_RANGES: '1',
});
