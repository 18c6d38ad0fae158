import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { openContainer } from '../../src/blob/azure-container.js';

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
