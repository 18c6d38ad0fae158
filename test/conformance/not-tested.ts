/** The tests of sanity-hsm.sh that have no counterpart here, with the reason. What is built later leaves this table. */

interface NotTested {
  readonly ids: readonly string[];
  readonly reason: string;
}

const oneArchive = 'one daemon serves every archive, and nothing registers with it';
const oneServer = 'there are no servers apart from the client, several of them, or their restarts';
const layouts = 'files have no layouts';

export const notTested: readonly NotTested[] = [
  { ids: ['409a'], reason: 'a stop waits for nobody: what runs ends, and waits for the next start' },
  { ids: ['225'], reason: 'upstream it is disabled' },
  {
    ids: ['600', '601', '602', '603', '604', '605', '606'],
    reason: 'the changelog has no audit fields, and no records of opens and reads',
  },
  { ids: ['11b'], reason: 'an import takes blobs by name: a FID names no blob' },
  {
    ids: ['14', '15'],
    reason: 'there is no rebind tool, and what was never archived is not released (SEMANTICS.md)',
  },
  { ids: ['16'], reason: 'transfers are not throttled' },
  { ids: ['1d', '1e', '1f', '11c', '22', '406', '408'], reason: layouts },
  { ids: ['607a', '607b', '607c', '607d', '607e'], reason: layouts },
  { ids: ['9a', '29d', '106', '106a', '106b', '255'], reason: oneArchive },
  { ids: ['70', '71', '72'], reason: `${oneArchive}: the log of the daemon is JSON` },
  {
    ids: ['26d', '52', '53', '106c', '253'],
    reason: 'one client, which is not evicted and has no data of its own',
  },
  { ids: ['107', '256', '300', '301', '302', '400', '401', '402a', '402b', '403'], reason: oneServer },
  { ids: ['404', '405', '407', '411'], reason: oneServer },
  { ids: ['260b', '260c'], reason: "Lustre's own scheduler: 260a has the order here" },
];
