/** The control API on a Unix socket: JSON in, JSON out, one error envelope. */
import { Readable } from 'node:stream';
import fastify, { type FastifyInstance } from 'fastify';
import type { z } from 'zod';
import { UserError } from '../base/errors.js';
import { jobView, type JobView } from '../base/control-api.js';
import type { Log } from '../base/log.js';
import type { HydrateRequest, ReleaseRequest } from '../hsm/bulk.js';
import type {
  AutoExportRequest,
  AutoImportRequest,
  Control,
  ExportRequest,
  ImportRequest,
} from './control.js';
import { toHttpError } from './errors.js';
import {
  autoExportBody,
  autoImportBody,
  changelogQuery,
  clearBody,
  dirtyQuery,
  exportBody,
  hsmBody,
  hsmParams,
  hydrateBody,
  importBody,
  jobParams,
  jobsQuery,
  parametersBody,
  parametersQuery,
  readerParams,
  releaseBody,
  unmountBody,
} from './schemas.js';

const linesType = 'application/x-ndjson';

/** As many paths as a command line has room for (2 MiB by default), each character escaped. */
const pathsLimit = { bodyLimit: 16 * 1024 * 1024 };

/** The control API's server, not listening yet. */
export function createServer(control: Control, log: Log): FastifyInstance {
  const server = fastify({
    bodyLimit: 64 * 1024,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 100 },
  });
  server.setErrorHandler((error, request, reply) => {
    const { status, body } = toHttpError(error);
    if (status >= 500)
      log.error({ err: error, route: request.url }, `${request.url} failed: ${body.error.message}`);
    return reply.code(status).send(body);
  });
  server.setNotFoundHandler((request, reply) =>
    reply
      .code(404)
      .send({ error: { code: 'NotFound', message: `no route ${request.method} ${request.url}` } }),
  );
  addJobRoutes(server, control);
  addChangelogRoutes(server, control);
  server.post('/v1/hydrate', pathsLimit, async (request, reply) => {
    const body = withoutUndefined<HydrateRequest>(parse(hydrateBody, request.body));
    return reply.type(linesType).send(Readable.from(lines(await control.hydrate(body))));
  });
  server.post('/v1/release', pathsLimit, async (request, reply) => {
    const body = withoutUndefined<ReleaseRequest>(parse(releaseBody, request.body));
    return reply.type(linesType).send(Readable.from(lines(await control.release(body))));
  });
  server.get('/v1/status', () => control.status());
  server.get('/v1/dirty', (request) => control.dirty(parse(dirtyQuery, request.query).limit));
  server.post('/v1/umount', (request, reply) => {
    reply.raw.once('close', () => {
      control.answered();
    });
    return control.unmount(parse(unmountBody, request.body ?? {}).lazy);
  });
  server.get('/v1/hsm/parameters', (request) =>
    control.parameters(parse(parametersQuery, request.query).pattern),
  );
  server.put('/v1/hsm/parameters', (request) => {
    const { assignments, persistent } = parse(parametersBody, request.body);
    return control.setParameters(assignments, persistent);
  });
  server.post('/v1/hsm/:verb', async (request) => {
    const { verb } = parse(hsmParams, request.params);
    return { result: plain(await control.hsm(verb, parse(hsmBody, request.body).path)) };
  });
  return server;
}

function addChangelogRoutes(server: FastifyInstance, control: Control): void {
  server.get('/v1/changelog', (request) => control.changelog.read(parse(changelogQuery, request.query)));
  server.get('/v1/changelog/readers', () => control.changelog.readers());
  server.post('/v1/changelog/readers', async (_, reply) =>
    reply.code(201).send(await control.changelog.register()),
  );
  server.delete('/v1/changelog/readers/:id', async (request) => {
    const { id } = parse(readerParams, request.params);
    await control.changelog.deregister(id);
    return { id };
  });
  server.post('/v1/changelog/readers/:id/clear', (request) => {
    const { id } = parse(readerParams, request.params);
    return control.changelog.clear(id, parse(clearBody, request.body).end);
  });
}

function addJobRoutes(server: FastifyInstance, { jobs }: Control): void {
  server.get('/v1/jobs', (request) => ({
    value: jobs.list(parse(jobsQuery, request.query).kind).map(jobView),
  }));
  server.post('/v1/jobs/import', async (request, reply) => {
    const body = parse(importBody, request.body ?? {});
    return reply.code(201).send(jobView(await jobs.createImport(withoutUndefined<ImportRequest>(body))));
  });
  server.post('/v1/jobs/export', async (request, reply) => {
    const body = parse(exportBody, request.body ?? {});
    return reply.code(201).send(jobView(await jobs.createExport(withoutUndefined<ExportRequest>(body))));
  });
  server.post('/v1/jobs/auto-import', async (request, reply) => {
    const body = parse(autoImportBody, request.body ?? {});
    return reply
      .code(201)
      .send(jobView(await jobs.createAutoImport(withoutUndefined<AutoImportRequest>(body))));
  });
  server.post('/v1/jobs/auto-export', async (request, reply) => {
    const body = parse(autoExportBody, request.body ?? {});
    return reply
      .code(201)
      .send(jobView(await jobs.createAutoExport(withoutUndefined<AutoExportRequest>(body))));
  });
  server.get('/v1/jobs/:name', (request) => jobView(jobs.get(parse(jobParams, request.params).name)));
  server.post('/v1/jobs/:name/cancel', async (request) => {
    const { name } = parse(jobParams, request.params);
    await jobs.cancel(name);
    return jobView(jobs.get(name));
  });
  server.delete('/v1/jobs/:name', async (request) => {
    const { name } = parse(jobParams, request.params);
    const job = jobs.get(name);
    await jobs.delete(name);
    return jobView(job);
  });
  server.get('/v1/jobs/:name/watch', (request, reply) => {
    const { name } = parse(jobParams, request.params);
    jobs.get(name);
    return reply.type(linesType).send(Readable.from(lines(views(jobs.watch(name)))));
  });
}

async function* views(jobs: AsyncIterable<JobView>): AsyncGenerator<JobView> {
  for await (const job of jobs) yield jobView(job);
}

async function* lines(values: AsyncIterable<object>): AsyncGenerator<string> {
  for await (const value of values) yield `${JSON.stringify(value)}\n`;
}

/** JSON has no bigint and no undefined. */
function plain(value: unknown): unknown {
  const text = JSON.stringify(value ?? null, (_, one: unknown) =>
    typeof one === 'bigint' ? String(one) : one,
  );
  return JSON.parse(text) as unknown;
}

/** exactOptionalPropertyTypes: zod's `undefined` is an absent property here. */
function withoutUndefined<T extends object>(value: { readonly [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T;
}

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue?.path.join('.') ?? '';
  throw new UserError(
    'InvalidParameter',
    `${where === '' ? 'the request' : where}: ${issue?.message ?? 'invalid'}`,
  );
}
