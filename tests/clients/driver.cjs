// Drives the npm clients. Reads commands from stdin, a line of JSON each, and tells every callback on stdout likewise;
// ends with its stdin, so that it does not outlive the test.
//
//   {"start": 1, "client": "undici", "url": "http://...", "types": ["a"]}    {"stop": 1}
//   {"run": 1, "type": "a", "data": "...", "id": "..."}    {"run": 1, "gaveUp": "..."}    {"run": 1, "failed": "..."}
//
// Each client connects as its documentation says, and comes back by itself if it does. Where one gives up, a new one is
// made with the last id, as an application would have to, and `gaveUp` tells it.
'use strict'

const { createRequire } = require('node:module')
const readline = require('node:readline')

// The clients are installed where this is run, not where it lies.
const installed = createRequire(`${process.cwd()}/package.json`)

// It is written for browsers.
globalThis.window = globalThis
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }

const { EventSource } = installed('eventsource')
const { createParser } = installed('eventsource-parser')
const { fetchEventSource } = installed('@microsoft/fetch-event-source')
const undici = installed('undici')

const sleep = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms)
  signal.addEventListener('abort', () => { clearTimeout(timer); resolve() })
})

// The interface of browsers, which two libraries have.
const native = (Source) => async ({ url, types, tell, signal }) => {
  const source = new Source(url)
  for (const type of new Set([...types, 'message'])) {
    source.addEventListener(type, (event) => {
      // Events of the connection itself have no data.
      if (typeof event.data === 'string') tell({ type: event.type, data: event.data, id: event.lastEventId })
    })
  }
  source.addEventListener('error', (event) => {
    if (source.readyState === 2 && !signal.aborted) tell({ failed: `closed: ${event.message ?? event.type}` })
  })
  signal.addEventListener('abort', () => source.close())
}

const clients = {
  'eventsource': native(EventSource),

  'undici': native(undici.EventSource),

  // A parser: the loop is the application's.
  'eventsource-parser': async ({ url, tell, signal }) => {
    let last
    let retry = 3000
    while (!signal.aborted) {
      const parser = createParser({
        onEvent: ({ id, event, data }) => {
          last = id ?? last
          tell({ type: event ?? 'message', data, id: last ?? '' })
        },
        onRetry: (ms) => { retry = ms },
      })
      try {
        const headers = { accept: 'text/event-stream', ...(last && { 'last-event-id': last }) }
        const response = await fetch(url, { headers, signal })
        for await (const text of response.body.pipeThrough(new TextDecoderStream())) parser.feed(text)
      } catch {
        // Cut, or not there yet: both mean to come back.
      }
      await sleep(retry, signal)
    }
  },

  '@microsoft/fetch-event-source': async ({ url, tell, signal }) => {
    await fetchEventSource(url, {
      signal,
      openWhenHidden: true,
      onmessage: ({ id, event, data }) => tell({ type: event || 'message', data, id }),
      // A stream that ended is to be opened again, which it takes an error for.
      onclose: () => { throw new Error('closed') },
      onerror: () => {},
    })
  },
}

const running = new Map()
const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)

const commands = readline.createInterface({ input: process.stdin })
commands.on('line', (line) => {
  const { start, stop, client, url, types } = JSON.parse(line)
  if (stop) {
    running.get(stop)?.abort()
    running.delete(stop)
    return
  }
  const controller = new AbortController()
  const tell = (said) => { if (!controller.signal.aborted) write({ run: start, ...said }) }
  running.set(start, controller)
  clients[client]({ url, types, tell, signal: controller.signal }).catch((error) => tell({ failed: String(error) }))
})
commands.on('close', () => process.exit())
