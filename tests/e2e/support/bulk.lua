-- Moving a lot of bytes whose content tells their position, with full control of chunks and order.
local ffi = require "ffi"
local sys = require "tests.e2e.support.sys"

local C = ffi.C
local bulk = {}

-- No two aligned words of it are alike, so a byte that is lost, doubled or out of place is seen.
local WORDS = 24 * 1024 * 1024 / 4 * 3 -- 72 MB
local content

local function get_content()
  if not content then
    content = ffi.new("uint32_t[?]", WORDS)
    for i = 0, WORDS - 1 do content[i] = i * 65537 % 4294967296 end
  end
  return ffi.cast("uint8_t *", content)
end

-- The bytes of the pattern at [from, from + n) as a string.
function bulk.text(from, n)
  assert(from + n <= WORDS * 4)
  return ffi.string(get_content() + from, n)
end

-- A small generator of our own (xorshift), so that a seed means the same everywhere.
function bulk.random(seed)
  local state = seed % 4294967291 + 1
  return function(limit) -- 1 … limit
    state = (state * 279470273) % 4294967291
    return state % limit + 1
  end
end

-- Sends the bytes at `transfer.at`; false when the socket takes no more now.
local function send_some(t)
  local n = math.min(t.bytes - t.put, t.chunk and t.chunk() or 256 * 1024)
  local put, why = t.from:send_from(get_content() + t.offset + t.put, n)
  if not put then error(("send after %d bytes: %s"):format(t.put, why), 0) end
  t.put = t.put + put
  if t.put == t.bytes and t.close then
    t.from:close()
  elseif t.put == t.bytes and t.finish then
    t.from:finish()
  end
  return put > 0
end

local function receive_some(t)
  local memory, n = t.to:receive_now(t.read and t.read() or nil)
  if memory then
    if t.got + n > t.bytes then error(("%d bytes too many"):format(t.got + n - t.bytes), 0) end
    if C.memcmp(memory, get_content() + t.offset + t.got, n) ~= 0 then
      error(("wrong content between bytes %d and %d"):format(t.got, t.got + n), 0)
    end
    t.got = t.got + n
    return true
  end
  if n == "again" then return false end
  t.ended = n
  if t.got < t.bytes then error(("the stream ended (%s) after %d of %d bytes"):format(n, t.got, t.bytes), 0) end
  return true
end

local function is_over(t)
  return t.put == t.bytes and t.got == t.bytes and (t.ended or not (t.finish or t.close))
end

-- Runs transfers { from = socket, to = socket, bytes =, offset = (in the pattern), finish = (half-close at the end),
-- close = (close at the end), chunk = f() (size of the next write), read = f() (size of the next read) } at once until
-- all have arrived.
function bulk.run(transfers)
  for i, t in ipairs(transfers) do
    t.put, t.got = t.put or 0, t.got or 0
    t.offset = t.offset or (i - 1) * 31000001
    assert(t.offset + t.bytes <= WORDS * 4)
  end
  local idle_since = sys.now()
  while true do
    local list, moved = {}, false
    for _, t in ipairs(transfers) do
      if t.put < t.bytes and send_some(t) then moved = true end
      if not is_over(t) and not t.ended and receive_some(t) then moved = true end
    end
    for _, t in ipairs(transfers) do
      if not is_over(t) then
        if t.put < t.bytes then list[#list + 1] = { fd = t.from.fd, events = sys.POLLOUT } end
        list[#list + 1] = { fd = t.to.fd, events = sys.POLLIN }
      end
    end
    if #list == 0 then break end
    if moved then
      idle_since = sys.now()
    elseif sys.poll(list, idle_since + sys.PATIENCE) == 0 then
      local t = transfers[1]
      error(("nothing moved for %d s: %d sent, %d received of %d"):format(sys.PATIENCE, t.put, t.got, t.bytes), 2)
    end
  end
  for _, t in ipairs(transfers) do
    if t.finish or t.close then assert(t.ended == "eof", "the stream ended by " .. tostring(t.ended)) end
  end
end

-- Sends into `from` until it takes no more for `quiet` seconds. Returns the bytes sent; raises over `limit`.
function bulk.fill(from, limit, quiet)
  local t = { from = from, bytes = WORDS * 4, put = 0, offset = 0 }
  while true do
    if not send_some(t) and not from:ready("w", quiet or 0.3) then return t.put end
    if t.put >= limit then error(("%d bytes were taken although nobody reads"):format(t.put), 2) end
  end
end

return bulk
