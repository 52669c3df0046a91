-- The methods of streams (rd, wr, and what reads and writes both). Each is a C function that may wait (core.stream)
-- and answers true and results, or false and what to raise.
local check = require "penstock.check"
local error, type = error, type

-- frame's length words -> bytes (0: varint), little endian
local lengths = {
  u8 = { 1, false }, u16be = { 2, false }, u16le = { 2, true }, u24be = { 3, false }, u32be = { 4, false },
  u32le = { 4, true }, varint = { 0, false },
}
local frame_call = 'rd:frame{ skip = 1, len = "u32be", adjust = -4, max = 65536 }'
local frame_keys = { "skip", "len", "adjust", "max" }
local FRAME_MAX = 2 ^ 20
local READ_MAX = 2 ^ 26

local function whole(value, name, least, most, or_else)
  if value == nil then return or_else end
  if type(value) ~= "number" or value % 1 ~= 0 or value < least or value > most then
    error(("%s: %s is a whole number from %d to %d"):format(frame_call, name, least, most), 3)
  end
  return value
end

local function frame_options(options)
  check.keys(options, frame_call, frame_keys, 3)
  local len = lengths[options.len]
  if not len then
    error(frame_call .. ': len is "u8", "u16be", "u16le", "u24be", "u32be", "u32le" or "varint"', 3)
  end
  return whole(options.skip, "skip", 0, 65536, 0), len[1], len[2], whole(options.adjust, "adjust", -65536, 65536, 0),
    whole(options.max, "max", 0, READ_MAX, FRAME_MAX)
end

-- One value where it was found, so that wr:write(rd:read()) has one argument.
local function settled(found, why)
  if found then return found end
  return found, why
end

-- make(core) -> the methods
return function(core)
  local stream = core.stream
  local read, exactly, upto, line, frame = stream.read, stream.exactly, stream.upto, stream.line, stream.frame
  local buffer, peek, unread, write = stream.buffer, stream.peek, stream.unread, stream.write
  local flush, finish, pass = stream.flush, stream.finish, stream.pass
  local methods = {}

  -- read([max]): some bytes; nil at the end.
  function methods.read(self, max)
    local ok, a, b = read(self, max)
    if ok then return settled(a, b) end
    return error(a, 2)
  end

  -- exactly(n): n bytes; nil, "eof" when there are fewer.
  function methods.exactly(self, n)
    local ok, a, b = exactly(self, n)
    if ok then return settled(a, b) end
    return error(a, 2)
  end

  -- upto(delimiter, [max]): what stands before it; nil, "eof" or "too_long".
  function methods.upto(self, delimiter, max)
    local ok, a, b = upto(self, delimiter, max)
    if ok then return settled(a, b) end
    return error(a, 2)
  end

  -- line([max]): a line and its terminator ("\n", "\r\n", "" at the end); nil, "eof" or "too_long".
  function methods.line(self, max)
    local ok, a, b = line(self, max)
    if ok then return a, b end
    return error(a, 2)
  end

  -- lines([max]): an iterator of the same.
  function methods.lines(self, max)
    return function()
      local ok, a, b = line(self, max)
      if ok then return a, b end
      return error(a, 2)
    end
  end

  -- frame{ skip =, len =, adjust =, max = }: header and body; nil, "eof" or "too_long".
  function methods.frame(self, options)
    local ok, a, b = frame(self, frame_options(options))
    if ok then return a, b end
    return error(a, 2)
  end

  -- buffer([max]): as read, but not made into a string.
  function methods.buffer(self, max)
    local ok, a, b = buffer(self, max)
    if ok then return settled(a, b) end
    return error(a, 2)
  end

  -- peek(n): n bytes, which stay; nil, "eof".
  function methods.peek(self, n)
    local ok, a, b = peek(self, n)
    if ok then return settled(a, b) end
    return error(a, 2)
  end

  -- unread(bytes): the next read gets them again.
  function methods.unread(self, bytes)
    local ok, a, b = unread(self, bytes)
    if ok then return a, b end
    return error(a, 2)
  end

  -- write(…): waits while more than the high-water mark is held. true; nil and a word for a socket that has failed.
  function methods.write(self, ...)
    local ok, a, b = write(self, ...)
    if ok then return a, b end
    return error(a, 2)
  end

  -- flush(): waits until all has been written to the socket.
  function methods.flush(self)
    local ok, a, b = flush(self)
    if ok then return a, b end
    return error(a, 2)
  end

  -- finish(): the end of what is written (half-close).
  function methods.finish(self)
    local ok, a, b = finish(self)
    if ok then return a, b end
    return error(a, 2)
  end

  -- pass(rd, [n]): moves n bytes, or all to the end.
  function methods.pass(self, rd, n)
    if n ~= nil and (type(n) ~= "number" or n < 0 or n % 1 ~= 0) then
      error("wr:pass(rd, [n]): n is a whole number of bytes", 2)
    end
    local ok, a, b = pass(self, rd, n)
    if not ok then return error(a, 2) end
    if a or b then return a, b end
    local left = n or math.huge -- between different ends: through here
    while left > 0 do
      local part, why = methods.buffer(rd, left < 65536 and left or 65536)
      if not part then return not why or nil, why end
      left = left - part:len()
      local done, failed = methods.write(self, part)
      if not done then return nil, failed end
    end
    return true
  end

  stream.set_methods(methods)
  return methods
end
