import t from 'tap';
import { permissions } from './permissions.js';
import { release } from './release.js';
import { state } from './state.js';
import { stateTable } from './state-table.js';
import { conform } from './theme.js';

await conform(t, [state, stateTable, release, permissions]);
