-- The first part of each script that adds entries to the stream.
-- KEYS: 1 the stream, 2 the id of the last entry.
-- ARGV: 1 'MAXLEN' or 'MINID', 2 the limit of that: entries, or milliseconds; 3 the new ids must be
-- greater than this id; 4 the newest id in the answers that the caller had before, or '0-0'.

-- Ids that lie further than this ahead of the clock are malformed: ten years, in milliseconds.
local HORIZON = 315360000000
local try, call, pcall = pcall, redis.call, redis.pcall
local byte, sub = string.byte, string.sub
local match, format = string.match, string.format
local stream, lastkey, floor = KEYS[1], KEYS[2], ARGV[3]
local function milliseconds()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function number(digits)
  if byte(digits) == 48 then return digits == '0' end
  return #digits < 20 or (#digits == 20 and digits <= '18446744073709551615')
end
-- Whether hubs read it as an id: two numbers of 64 bits, without leading zeros.
local function position(value)
  if type(value) ~= 'string' then return false end
  local ms, seq = match(value, '^(%d+)%-(%d+)$')
  return ms and number(ms) and number(seq)
end
local function is_far(id)
  -- Thirteen digits that begin with 1 are before 2033: no need to ask for the time.
  if byte(id, 1) == 49 and byte(id, 14) == 45 then return false end
  return tonumber(match(id, '^%d+')) > milliseconds() + HORIZON
end
local function after(a, b)
  if byte(a, 14) == 45 and byte(b, 14) == 45 then
    -- Dashes at the same place, as from 2001 to 2286: comparing texts is faster than numbers.
    local ams, bms = sub(a, 1, 13), sub(b, 1, 13)
    if ams ~= bms then return ams > bms end
    if #a ~= #b then return #a > #b end
    return a > b
  end
  local ams, aseq = match(a, '(%d+)-(%d+)')
  local bms, bseq = match(b, '(%d+)-(%d+)')
  if ams ~= bms then return tonumber(ams) > tonumber(bms) end
  return tonumber(aseq) > tonumber(bseq)
end
local function successor(id)
  local ms, seq = match(id, '(%d+)-(%d+)')
  -- A number of Lua is exact up to 15 digits.
  if #seq > 15 then return format('%.0f-0', ms + 1) end
  return format('%s-%.0f', ms, seq + 1)
end
local last = call('GET', lastkey)
-- Checked before anything is added: each retry would add it again. ARGV[4] is always a position.
if last and last ~= ARGV[4] then
  if not position(last) then
    return redis.error_reply('CORRUPT ' .. lastkey .. ' holds no position')
  end
  if is_far(last) then last = false end
end
local function repair()
  local limit = format('%.0f', milliseconds() + HORIZON)
  local kept = call('XREVRANGE', stream, limit, '-', 'COUNT', 256)
  call('DEL', stream)
  for at = #kept, 1, -1 do
    -- No hub writes more than two fields; `unpack` fails for some thousands.
    if #kept[at][2] <= 16 then call('XADD', stream, kept[at][1], unpack(kept[at][2])) end
  end
end
local function is_broken(got)
  if type(got) == 'string' then return is_far(got) end
  return match(got.err, 'exhausted')
end
local trim = ARGV[2]
if ARGV[1] == 'MINID' then trim = format('%.0f-0', math.max(0, milliseconds() - trim)) end
local added
local plain = 0
local function add(field, value)
  local got
  if plain > 0 then
    plain = plain - 1
    got = pcall('XADD', stream, '*', field, value, 'p', added)
  else
    plain = 99
    local previous = added or last or '0-0'
    got = pcall('XADD', stream, ARGV[1], '~', trim, '*', field, value, 'p', previous)
    if not added and is_broken(got) then
      repair()
      got = pcall('XADD', stream, '*', field, value, 'p', previous)
    end
    if not added and type(got) == 'string' then
      -- A new order begins in the next millisecond: another order may have ended in this one.
      local top = last or format('%.0f-0', milliseconds() + 1)
      if floor ~= top and after(floor, top) and not is_far(floor) then top = floor end
      if not after(got, top) then
        call('XDEL', stream, got)
        got = pcall('XADD', stream, successor(top), field, value, 'p', previous)
      end
    end
  end
  if type(got) == 'table' then return nil, got.err end
  added = got
  return got
end
