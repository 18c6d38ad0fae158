/** Every test of sanity-hsm.sh has a counterpart here, or a reason why not. */
import t from 'tap';
import { archive } from './archive.js';
import { changelog } from './changelog.js';
import { exclusions } from './front-ends.js';
import { notTested } from './not-tested.js';
import { parameters } from './parameters.js';
import { permissions } from './permissions.js';
import { readers } from './readers.js';
import { release } from './release.js';
import { removeCancel } from './remove-cancel.js';
import { requests } from './requests.js';
import { restore } from './restore.js';
import { sanityHsm } from './sanity-hsm.js';
import { state } from './state.js';
import { stateTable } from './state-table.js';

const themes = {
  archive,
  changelog,
  parameters,
  permissions,
  readers,
  release,
  removeCancel,
  requests,
  restore,
  state,
  stateTable,
};
const tested = Object.values(themes).flatMap(({ cases }) => cases.flatMap(({ ids }) => ids));
const reasons = notTested.flatMap(({ ids }) => ids);
const known = new Set(sanityHsm.map(({ id }) => id));
/** Sections of lustre-hsm are no ids of sanity-hsm.sh. */
const isSection = (id: string): boolean => id.includes('.');

t.test('every id of sanity-hsm.sh is tested, or has its reason, and not both', (t) => {
  t.equal(sanityHsm.length, 174);
  t.equal(known.size, 174, 'none is there twice');
  const places = [...tested, ...reasons];
  for (const { id, title } of sanityHsm)
    t.equal(places.filter((place) => place === id).length, 1, `${id} ${title}`);
  t.end();
});

t.test('what means something with one host and one archive is tested', (t) => {
  const missing = sanityHsm.filter(({ id, mark }) => mark === 'yes' && !tested.includes(id));
  t.same(
    missing.map(({ id }) => id),
    [],
  );
  t.end();
});

t.test('no table names an id that there is not', (t) => {
  t.same(
    tested.filter((id) => !isSection(id) && !known.has(id)),
    [],
  );
  t.same(
    reasons.filter((id) => !known.has(id)),
    [],
  );
  const excluded = Object.values(exclusions).flatMap((rows) => rows.flatMap(({ ids }) => ids));
  t.same(
    excluded.filter((id) => !tested.includes(id)),
    [],
  );
  t.end();
});

t.test('a title is there once in a theme', (t) => {
  for (const [name, { cases }] of Object.entries(themes)) {
    const titles = cases.map(({ ids, title }) => `${ids.join(' ')} ${title}`);
    t.equal(new Set(titles).size, titles.length, name);
  }
  t.end();
});
