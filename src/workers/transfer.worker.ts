/** Entry of a transfer thread: the work is in transfer.ts, download.ts and upload-task.ts. */
export { runTransfer } from './transfer.js';
