-- Publishes a batch once, however often the batch is sent.
-- KEYS: 3 the publisher's record; from 4 on, the idempotency keys of the batch.
-- ARGV: 5 the number of the batch's first event among all events of the publisher, from 1; 6 for
-- how many milliseconds Redis remembers the record and the idempotency keys; from 7 on, for each
-- event, the entry and the index of its idempotency key in KEYS, or '0'.
-- A batch with entries of runs: see above for KEYS; ARGV 6 is followed as for values, and by the
-- most bytes of the copy of a run, the most bytes of the copies of all open runs, and for how many
-- milliseconds Redis keeps an ended run; and the index of such an entry is followed by the index of
-- the copy in KEYS.
-- A batch that sets values: KEYS ends with the hash of the values and the set that orders these by
-- time; ARGV 6 is followed by the most values, and by how many values the batch sets, divided by
-- blanks; and ARGV ends with so many pairs of the number of an event and the name of its value. The
-- field of the hash without a name says that a value was removed to make room.
-- Returns the ids, divided by blanks; or {error, ids, replaced idempotency keys}. The ids are those
-- of the events that are in the stream.
local first, remember, count = ARGV[5], ARGV[6], (#ARGV - 6) / 2
local names, latest, order = {}, KEYS[#KEYS - 1], KEYS[#KEYS]
local ms, most, values, of_runs = match(remember, '^(%d+) (%d+) (%d+)(.*)$')
if ms then
  remember, count = ms, count - tonumber(values)
  run_bytes, all_bytes, run_keep = match(of_runs, '^ (%d+) (%d+) (%d+)$')
  for at = 7 + 2 * count, #ARGV, 2 do names[tonumber(ARGV[at])] = ARGV[at + 1] end
end
local function keep(name, id, entry)
  call('HSET', latest, name, id .. ' ' .. entry)
  call('ZADD', order, match(id, '^%d+'), name)
  for surplus = 1, call('ZCARD', order) - tonumber(most) do
    call('HDEL', latest, call('ZPOPMIN', order)[1])
    call('HSET', latest, '', id)
  end
end
-- A hash or a set that no hub wrote is replaced.
local function replace(name, id, entry)
  call('DEL', latest, order)
  call('HSET', latest, '', id)
  keep(name, id, entry)
end
-- Sets a value, and returns the error, if any. The event is in the stream already: an error that
-- ended the script would add the event again with each retry.
local function fails_to_keep(...)
  local is_kept, cause = try(keep, ...)
  if not is_kept and match(cause.err or cause, 'WRONGTYPE') then
    is_kept, cause = try(replace, ...)
  end
  return not is_kept and 'value not kept: ' .. (cause.err or cause)
end
local ids, had, replaced = {}, 0, 0
if last ~= ARGV[4] then
  local state = pcall('GET', KEYS[3])
  local known = type(state) == 'string' and match(state, '^(%d+) ')
  if known == first then
    for taken in string.gmatch(state, ' (%S+)') do
      local event = had + 1
      local can_be = event <= count and position(taken) and not (last and after(taken, last))
      -- An event without an idempotency key is newer than all that came before the batch.
      if can_be and ARGV[6 + 2 * event] == '0' then can_be = after(taken, ARGV[4]) end
      if not can_be then
        ids, had = {}, 0
        break
      end
      had = event
      ids[had] = taken
    end
  elseif known and tonumber(known) > tonumber(first) then
    return redis.error_reply('STALE a later batch was taken')
  end
end
local taken, failed = had, nil
for event = had + 1, count do
  local entry, key, run = ARGV[5 + 2 * event], ARGV[6 + 2 * event], nil
  if run_bytes then key, run = match(key, '^(%d+) ?(%d*)$') end
  local got = key ~= '0' and pcall('GET', KEYS[tonumber(key)])
  if got then
    local newest = added or last
    if not position(got) or is_far(got) or (newest and after(got, newest)) then
      got = false
      replaced = replaced + 1
    end
  end
  if not got then
    got, failed = add('e', entry)
    if got and key ~= '0' then pcall('SET', KEYS[tonumber(key)], got, 'PX', remember) end
    if got and names[event] then failed = fails_to_keep(names[event], got, entry) end
    run = got and KEYS[tonumber(run)]
    if run then failed = fails_to_copy(run, got, entry) or failed end
  end
  if not got then break end
  taken = event
  ids[event] = got
  if failed then break end
end
if run_bytes then try(note_runs) end
local all = table.concat(ids, ' ')
if taken > had then
  if added then pcall('SET', lastkey, added) end
  pcall('SET', KEYS[3], first .. ' ' .. all, 'PX', remember)
end
if failed or replaced > 0 then return {failed or '', all, replaced} end
return all
