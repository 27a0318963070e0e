// A sink: POSTs every batch to the URL of CREATE SINK, with the token that a secret holds.

import { send } from 'sepal:plugin/http@0.1.0';
import { get } from 'sepal:plugin/secrets@0.1.0';

let config = {};

const fail = (kind, code, message, retryAfterMs) => {
  throw { payload: { kind, code, message, retryAfterMs } };
};

// What kind of error a status is; undefined for success.
const classify = (status) => {
  if (status >= 200 && status < 300) return undefined;
  if ([401, 403, 407].includes(status)) return 'unauthorized';
  if ([404, 405, 410].includes(status) || (status >= 300 && status < 400)) return 'misconfigured';
  if (status >= 400 && status < 500 && ![408, 425, 429].includes(status)) return 'rejected';
  return 'transient';
};

export const sink = {
  check(args) {
    sink.open(args);
  },

  open(args) {
    config = JSON.parse(args.configJson);
    return {};
  },

  setSchema(_schema) {},

  write(batch) {
    let response;
    try {
      const headers = [
        ['authorization', { tag: 'bearer', val: get('token') }],
        ['content-type', { tag: 'text', val: 'application/x-ndjson' }],
        ['idempotency-key', { tag: 'text', val: batch.id }],
      ];
      response = send({ method: 'POST', url: config.url, headers, body: batch.payload });
    } catch (error) {
      const { tag } = error.payload ?? error;
      fail(tag === 'denied' ? 'misconfigured' : 'transient', `http.${tag}`, `the destination was not reached: ${tag}`);
    }
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
