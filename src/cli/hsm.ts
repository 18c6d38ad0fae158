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
  else for (const one of value) for (const text of parameterTexts(one, onlyValues)) say(text);
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
  else for (const one of value) say(`${one.name}=${one.value}`);
}

/**
 * As `lctl get_param` (read_param): nothing of a list of nothing; what has several lines, or would fill one together with
 * its name, begins on its own.
 */
export function parameterTexts(
  { name, value }: HsmParameterList['value'][number],
  onlyValue = false,
): readonly string[] {
  if (value === '' && /\.hsm\.(actions|active_requests)$/.test(name)) return [];
  if (onlyValue) return [value];
  return value.includes('\n') || name.length + value.length >= 79
    ? [`${name}=`, value]
    : [`${name}=${value}`];
}
