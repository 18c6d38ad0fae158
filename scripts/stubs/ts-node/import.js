// What tap loads TypeScript with, on esbuild: the compiler itself costs each of its processes 8 seconds of CPU, five
// minutes in a run of all tests. `npm run typecheck` is what checks types.
import { register } from 'node:module';

register(new URL('./hooks.js', import.meta.url));
