/** `lustrite hsm get-param|set-param`: what `lctl get_param` and `set_param` do on a metadata server. */
import type { HsmParameterList } from '../base/control-api.js';
import { UsageError } from './failure.js';
import { say, sayJson } from './output.js';
import { targetAt } from './target.js';

/** Everything there is. */
const allParameters = ['hsm.*', 'hsm_control'];

export async function getParameters(
  path: string,
  patterns: readonly string[],
  { json, onlyValues }: { readonly json?: boolean; readonly onlyValues?: boolean },
): Promise<void> {
  const query = (patterns.length > 0 ? patterns : allParameters)
    .map((pattern) => `pattern=${encodeURIComponent(pattern)}`)
    .join('&');
  const { value } = await targetAt(path).client.get<HsmParameterList>(`/v1/hsm/parameters?${query}`);
  if (json === true) sayJson(value);
  else for (const one of value) say(onlyValues === true ? one.value : parameterText(one));
}

export async function setParameters(
  path: string,
  texts: readonly string[],
  { json, persistent = false }: { readonly json?: boolean; readonly persistent?: boolean },
): Promise<void> {
  const assignments = texts.map((text) => {
    const at = text.indexOf('=');
    if (at < 1) throw new UsageError(`'${text}' is not NAME=VALUE, e.g. hsm.max_requests=10`);
    return { pattern: text.slice(0, at), value: text.slice(at + 1) };
  });
  const { client } = targetAt(path);
  const { value } = await client.put<HsmParameterList>('/v1/hsm/parameters', { assignments, persistent });
  if (json === true) sayJson(value);
  else for (const one of value) say(parameterText(one));
}

/** As lctl: what has several lines begins on its own. */
function parameterText({ name, value }: HsmParameterList['value'][number]): string {
  return `${name}=${value.includes('\n') ? '\n' : ''}${value}`;
}
