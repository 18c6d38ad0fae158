import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { openContainer } from '../../src/blob/azure-container.js';
import { Outage } from '../../src/blob/outage.js';

await t.test('look-ups share connections, whether the blob is there or not', async (t) => {
  const answer = ({ url = '' }: IncomingMessage, response: ServerResponse): void => {
    if (url.includes('gone')) response.writeHead(404, { 'x-ms-error-code': 'BlobNotFound' }).end();
    else response.writeHead(200, { etag: '"0x1"', 'content-length': '10' }).end();
  };
  const server = createServer(answer).listen(0, '127.0.0.1');
  t.teardown(() => server.close());
  await once(server, 'listening');
  const connections = new Set<unknown>();
  server.on('connection', (socket) => connections.add(socket));
  const { port } = server.address() as AddressInfo;
  await using container = openContainer({
    url: `http://127.0.0.1:${port}/account/data`,
    account: 'account',
    container: 'data',
    auth: { kind: 'key', accountKey: '' },
    retry: { maxTries: 1 },
  });
  for (const name of ['a', 'gone', 'b', 'gone', 'c', 'd', 'gone', 'e', 'f', 'g']) {
    const found = container.properties(name);
    if (name === 'gone') await t.rejects(found, { kind: 'missing', message: /404/ });
    else t.equal((await found).size, 10);
  }
  // The next may begin before the connection of the last is known to be free.
  t.ok(connections.size <= 2, `${connections.size} connections`);
});

await t.test('an outage is known at its first try, and told when it has lasted and when it is over', (t) => {
  const told: unknown[] = [];
  const outage = new Outage((now) => told.push(now));
  outage.answered(200);
  outage.failed('refused', 1_000);
  t.same(outage.at(1_000), { sinceMs: 1_000, why: 'refused' });
  outage.failed('reset', 5_999);
  outage.answered(404);
  t.equal(outage.at(5_999), undefined);
  t.same(told, [], 'a short one is not worth a word');
  outage.failed('refused', 10_000);
  outage.failed('reset', 15_000);
  outage.failed('reset', 16_000);
  t.same(told, [{ sinceMs: 10_000, why: 'reset' }]);
  t.equal(outage.at(80_000), undefined, 'nothing was asked since');
  outage.answered(412);
  outage.answered(200);
  t.equal(told.length, 2);
  t.equal(told[1], undefined);
  outage.answered(503);
  t.match(outage.at(), { why: 'HTTP status 503' });
  t.end();
});
