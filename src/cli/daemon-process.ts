/** The process that `lustrite mount` leaves behind: gets its launch over IPC, reports once, and goes on alone. */
import { messageChain } from '../base/errors.js';
import type { Launch, LaunchReport } from '../base/launch.js';
import { redact } from '../base/log.js';
import { UsageError } from './failure.js';

export async function daemonProcess(): Promise<void> {
  if (process.send === undefined) {
    throw new UsageError(
      'this is started by lustrite mount; use lustrite mount --foreground to see the daemon',
    );
  }
  const launch = await new Promise<Launch>((resolve) => {
    process.once('message', (message) => {
      resolve(message as Launch);
    });
  });
  const told = new AbortController();
  // Whoever started us was killed before we were ready: nobody would know about this mount.
  process.once('disconnect', () => {
    if (!told.signal.aborted) process.kill(process.pid, 'SIGTERM');
  });
  const report = async (message: LaunchReport): Promise<void> => {
    told.abort();
    await new Promise<void>((resolve) => {
      if (process.connected) process.send?.(message, undefined, {}, () => resolve());
      else resolve();
    });
    if (process.connected) process.disconnect();
  };
  const { runDaemon } = await import('../daemon.js');
  try {
    await runDaemon(launch, {
      pretty: false,
      ready: (notices) => {
        void report({ kind: 'ready', notices });
      },
    });
  } catch (error) {
    if (!told.signal.aborted) await report({ kind: 'failed', message: redact(messageChain(error)) });
    process.exit(1);
  }
  // Whatever a library still keeps open must not keep a daemon that has stopped.
  process.exit(0);
}
