import t from 'tap';
import { archive } from './archive.js';
import { changelog } from './changelog.js';
import { parameters } from './parameters.js';
import { removeCancel } from './remove-cancel.js';
import { requests } from './requests.js';
import { conform } from './theme.js';

// One explicit request at a time: what a test holds keeps all others waiting.
await conform(t, [archive, removeCancel, requests, parameters, changelog], {
  LUSTRITE_HSM_MAX_REQUESTS: '1',
  LUSTRITE_TRANSFER_BLOCK_BYTES: String(2 ** 20),
  LUSTRITE_TRANSFER_PARALLEL_BLOCKS: '1',
});
