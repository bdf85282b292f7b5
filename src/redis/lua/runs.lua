-- Copies the entries of runs, so that an instance that starts later finds a run when the stream is
-- trimmed.
-- KEYS, if the batch has entries of runs: 4 the hash of the runs; 5 the set that orders the ended
-- runs by the time when Redis forgets them; others the copies, each a stream.
-- The hash has for each run, divided by blanks: 'open', 'stopping' or 'ended'; the bytes of the
-- copy; when Redis forgets the run; the first and the last entry of the run; the newest event that
-- the copy has dropped; and the 16 bytes of the producer, with the reason to stop behind them. The
-- field without a name has the bytes of the open and of the ended runs.

-- The second bytes of the entries. The name of the run follows, and the producer but for STOP.
local START, TAKE_OVER, EVENT, STOP, END = 6, 7, 8, 9, 10
-- The bytes that an entry counts for in addition to its own.
local OVERHEAD = 64
-- The most entries, and about the most bytes, among which an older event of a conflation key is
-- looked for.
local LOOK_BACK, LOOK_BACK_BYTES = 16, 65536
local RECORD = '^(%l+) (%d+) (%d+) (%d+%-%d+) (%d+%-%d+) (%d+%-%d+) (.*)$'
-- The most bytes of a copy, and of all open runs together; how long an ended run is kept.
local run_bytes, all_bytes, run_keep
local runs, touched = {}, {}
local open_bytes, ended_bytes
local function weigh(run, bytes)
  run.bytes = run.bytes + bytes
  if run.state == 'ended' then
    ended_bytes = ended_bytes + bytes
  else
    open_bytes = open_bytes + bytes
  end
end
local function length(entry, at)
  local a, b, c = byte(entry, at, at + 2)
  return a + 256 * b + 65536 * c
end
-- Returns the run of an entry, and where the rest of the entry begins.
local function run_of(key, entry)
  local rest = 7 + length(entry, 3)
  if runs[key] then return runs[key], rest end
  if not open_bytes then
    open_bytes, ended_bytes = match(call('HGET', KEYS[4], '') or '', '^(%d+) (%d+)$')
    open_bytes, ended_bytes = tonumber(open_bytes or 0), tonumber(ended_bytes or 0)
  end
  local run = {name = sub(entry, 7, rest - 1)}
  local record = call('HGET', KEYS[4], run.name) or ''
  run.state, run.bytes, run.till, run.first, run.last, run.lost, run.producer =
    match(record, RECORD)
  if run.producer then run.producer, run.reason = sub(run.producer, 1, 16), sub(run.producer, 17) end
  run.bytes = tonumber(run.bytes or 0)
  runs[key] = run
  touched[#touched + 1] = key
  return run, rest
end
-- Returns the entry up to an id that gave the run a producer, if the copy has no event after it.
local function idle_take_over(key, run, upto)
  for _, entry in ipairs(call('XREVRANGE', key, upto, '(' .. run.first, 'COUNT', 2)) do
    local kind = byte(entry[2][2], 2)
    if kind == TAKE_OVER then return entry end
    if kind ~= STOP then return nil end
  end
end
-- Drops the oldest events of a copy, down to a number of bytes. A start stays as long as an event
-- of its producer, and the first start and the request to stop stay with the run.
local function shrink(key, run, most)
  local from, superseded = run.first, nil
  if after(run.lost, from) then
    from, superseded = run.lost, idle_take_over(key, run, run.lost)
  end
  repeat
    local gone, some = {}, call('XRANGE', key, '(' .. from, '+', 'COUNT', 64)
    local function drop(entry)
      gone[#gone + 1] = entry[1]
      weigh(run, -OVERHEAD - #entry[2][2])
    end
    for _, entry in ipairs(some) do
      if run.bytes <= most then break end
      local kind = byte(entry[2][2], 2)
      if kind == EVENT then
        drop(entry)
        run.lost = entry[1]
      elseif kind == TAKE_OVER then
        if superseded then drop(superseded) end
        superseded = entry
      end
      from = entry[1]
    end
    if #gone > 0 then call('XDEL', key, unpack(gone)) end
  until run.bytes <= most or #some < 64
end
-- Returns the conflation key of an event with the type; nil if the event has no key. `at`: after the
-- producer.
local function conflation_of(entry, at)
  if byte(entry, at) ~= 1 then return nil end
  local frame = at + 5 + length(entry, at + 1)
  return sub(entry, at + 5, frame - 1) .. '\n' .. (match(entry, '^event: [^\n]*', frame) or '')
end
-- Removes the older event of a conflation key from the end of a copy. An older event further back
-- stays: hubs remove the event when they read the copy.
local function conflate(key, run, conflation)
  local from, bytes = '+', 0
  for _ = 1, LOOK_BACK do
    local older = call('XREVRANGE', key, from, '(' .. run.first, 'COUNT', 1)[1]
    if not older then return end
    local entry = older[2][2]
    if byte(entry, 2) == EVENT and conflation_of(entry, 23 + length(entry, 3)) == conflation then
      call('XDEL', key, older[1])
      weigh(run, -OVERHEAD - #entry)
      return
    end
    bytes = bytes + #entry
    if bytes > LOOK_BACK_BYTES then return end
    from = '(' .. older[1]
  end
end
-- Decides as each hub does whether an entry has an effect, and copies the entry then.
local function copy(key, id, entry)
  local run, rest = run_of(key, entry)
  local kind, producer = byte(entry, 2), sub(entry, rest, rest + 15)
  local is_open = run.state == 'open' or run.state == 'stopping'
  if not is_open and (kind == START or kind == TAKE_OVER) then
    weigh(run, -run.bytes)
    call('DEL', key)
    run.state, run.till, run.first, run.lost = 'open', 0, id, run.last or '0-0'
    run.producer, run.reason = producer, ''
  elseif not is_open or kind == START then
    return
  elseif kind == TAKE_OVER then
    run.producer = producer
    local older = idle_take_over(key, run, '+')
    if older then
      call('XDEL', key, older[1])
      weigh(run, -OVERHEAD - #older[2][2])
    end
  elseif kind == STOP then
    if run.state == 'stopping' then return end
    run.state, run.reason = 'stopping', sub(entry, rest + 4)
  elseif producer ~= run.producer then
    return
  end
  local conflation = kind == EVENT and conflation_of(entry, rest + 16)
  if conflation then conflate(key, run, conflation) end
  call('XADD', key, id, 'e', entry)
  run.last = id
  weigh(run, OVERHEAD + #entry)
  local most = tonumber(run_bytes)
  if open_bytes > tonumber(all_bytes) then most = math.min(most, run.bytes) - 1 end
  if run.bytes > most then shrink(key, run, most - most / 64) end
  if kind == END then
    local bytes = run.bytes
    weigh(run, -bytes)
    run.state, run.till = 'ended', format('%.0f', milliseconds() + run_keep)
    weigh(run, bytes)
    call('PEXPIRE', key, run_keep)
    call('ZADD', KEYS[5], run.till, run.name)
  end
end
-- Removes a copy that has a hole because an entry could not be written, and keys that no hub wrote.
local function discard(key, entry, is_foreign)
  if is_foreign then
    call('DEL', KEYS[4], KEYS[5])
    runs, touched, open_bytes = {}, {}, nil
  end
  call('DEL', key)
  local run = run_of(key, entry)
  weigh(run, -run.bytes)
  run.state = nil
end
-- Copies an entry, and returns the error, if any. The entry is in the stream already: an error that
-- ended the script would add the entry again with each retry.
local function fails_to_copy(key, id, entry)
  local is_copied, cause = try(copy, key, id, entry)
  if is_copied then return false end
  cause = cause.err or cause
  try(discard, key, entry, match(cause, 'WRONGTYPE'))
  return 'run not copied: ' .. cause
end
-- Writes the records of the runs that the batch has changed.
local function note_runs()
  for _, key in ipairs(touched) do
    local run = runs[key]
    if not run.state then
      call('HDEL', KEYS[4], run.name)
    else
      local numbers = format('%.0f %.0f', run.bytes, run.till)
      local ids = run.first .. ' ' .. run.last .. ' ' .. run.lost
      local record = table.concat({run.state, numbers, ids, run.producer .. run.reason}, ' ')
      call('HSET', KEYS[4], run.name, record)
    end
  end
  if open_bytes then call('HSET', KEYS[4], '', format('%.0f %.0f', open_bytes, ended_bytes)) end
end
