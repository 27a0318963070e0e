// The sink `webhook-js`, in JavaScript: what `webhook` is in Rust, without its options for headers.

import { send } from 'sepal:plugin/http@0.1.0';
import { get } from 'sepal:plugin/secrets@0.1.0';

let config = {};

const fail = (kind, code, message, retryAfterMs) => {
  throw { payload: { kind, code, message, retryAfterMs } };
};

// Undefined for success; the same rules as the Rust SDK's HttpStatus::classify.
const classify = (status) => {
  if (status >= 200 && status < 300) return undefined;
  if ([401, 403, 407].includes(status)) return 'unauthorized';
  if ([404, 405, 410].includes(status) || (status >= 300 && status < 400)) return 'misconfigured';
  if (status >= 400 && status < 500 && ![408, 425, 429].includes(status)) return 'rejected';
  return 'transient';
};

const secret = (slot) => {
  try {
    return get(slot);
  } catch (error) {
    fail('transient', 'secret', `the secret of ${slot} is not available`);
  }
};

const request = (method, headers, body) => {
  const token = config.token ? secret('token') : undefined;
  if (token) headers.push(['authorization', { tag: 'bearer', val: token }]);
  let response;
  try {
    response = send({ method, url: config.url, headers, body });
  } catch (error) {
    const { tag, val } = error.payload ?? error;
    const kind = tag === 'denied' ? 'misconfigured' : 'transient';
    fail(kind, `http.${tag}`, `the destination was not reached: ${tag} ${val ?? ''}`, tag === 'throttled' ? val : undefined);
  }
  return response;
};

const text = (value) => ({ tag: 'text', val: value });

export const sink = {
  check(args) {
    config = JSON.parse(args.configJson);
    const { status } = request('HEAD', []);
    const kind = classify(status);
    // A receiver that only knows POST answers so.
    if (kind && ![400, 404, 405, 411, 415, 422, 501].includes(status)) {
      fail(kind, `http.${status}`, `the destination answered ${status}`);
    }
  },

  open(args) {
    config = JSON.parse(args.configJson);
    return {};
  },

  setSchema(_schema) {},

  write(batch) {
    const headers = [
      ['content-type', text('application/x-ndjson')],
      ['idempotency-key', text(batch.id)],
      ['webhook-id', text(batch.id)],
    ];
    const response = request('POST', headers, batch.payload);
    const kind = classify(response.status);
    if (kind) {
      const [, after] = response.headers.find(([name]) => name.toLowerCase() === 'retry-after') ?? [];
      const waitMs = /^\d{1,6}$/.test(after ?? '') ? Number(after) * 1000 : undefined;
      fail(kind, `http.${response.status}`, `the destination answered ${response.status}`, waitMs);
    }
    return { tag: 'durable', val: [] };
  },

  flush() {
    return undefined;
  },

  close() {},
};
