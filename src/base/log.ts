/** Logs: pino's JSON lines, pretty only on a terminal, never with a secret in them. */
import { writeSync } from 'node:fs';
import { pino } from 'pino';

export type Log = pino.Logger;

export interface LogDestination {
  write(line: string): void;
}

export interface LogOptions {
  readonly level: string;
  readonly destination: LogDestination;
  readonly pretty: boolean;
  /** Called with each line of level `error` or worse: what `status` shows as the last error. */
  readonly onError?: (record: { readonly time: string; readonly message: string }) => void;
}

/** Values of SAS signatures, account keys and bearer tokens, wherever in a line they stand. */
const secrets: readonly (readonly [RegExp, string])[] = [
  [/([?&]|\b)(sig)=[^&\s"'\\()]+/gi, '$1$2=***'],
  [/\b(AccountKey|SharedAccessSignature)=[^;\s"'\\()]+/gi, '$1=***'],
  [/\b(AZURE_STORAGE_(?:KEY|SAS_TOKEN|CONNECTION_STRING)|AZURE_CLIENT_SECRET)=[^\s"'\\]+/g, '$1=***'],
  [/\b(Bearer|SharedKey)\s+[A-Za-z0-9._~+/:=-]{8,}/gi, '$1 ***'],
];

/** A text without secrets. */
export function redact(text: string): string {
  let clean = text;
  for (const [pattern, replacement] of secrets) clean = clean.replace(pattern, replacement);
  return clean;
}

/** Writes whole lines to a file descriptor at once, so that the last one before a crash is there too. */
export function fdDestination(fd: number): LogDestination {
  return {
    write(line) {
      let rest = Buffer.from(line);
      for (let tries = 0; rest.length > 0 && tries < 100; tries++) {
        try {
          rest = rest.subarray(writeSync(fd, rest));
        } catch (error) {
          // Nobody reads any more, or the disk is full: the daemon goes on without its log.
          if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
        }
      }
    },
  };
}

/** One line for people: time, level, message, and the fields as name=value. */
export function prettyLine(json: string): string {
  const { level, time, msg, ...fields } = JSON.parse(json) as Readonly<Record<string, unknown>>;
  const clock = typeof time === 'string' ? time.slice(11, 19) : '';
  const rest = Object.entries(fields).map(
    ([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return `${clock} ${String(level).padEnd(5)} ${typeof msg === 'string' ? msg : ''}${rest.join('')}\n`;
}

/** Levels are words and times ISO 8601 in UTC: lines are read by people and by jq. */
export function createLog({ level, destination, pretty, onError }: LogOptions): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.errWithCause },
    },
    {
      write(line: string) {
        const clean = redact(line);
        if (onError !== undefined && /^\{"level":"(?:error|fatal)"/.test(clean)) {
          const { time, msg } = JSON.parse(clean) as { readonly time: string; readonly msg?: string };
          onError({ time, message: msg ?? '' });
        }
        destination.write(pretty ? prettyLine(clean) : clean);
      },
    },
  );
}
