-- HTTP/1 messages, for filters: reads heads, tells where messages end, moves bodies. Strict where two readers could
-- understand different things. Knows streams by their methods only.
local concat, find, gmatch, lower, match = table.concat, string.find, string.gmatch, string.lower, string.match
local tonumber = tonumber

local http1 = {}

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"
local FIELD = "^([%w!#$%%&'*+.^_`|~-]+):[ \t]*(.*)$"
local ENCODING_MAX = 128
local SIZE_DIGITS = 13
local EMPTY_MAX = 4 -- empty lines before a request: some clients send one behind a body

http1.TOKEN = TOKEN

-- Name and value of a field, or nil.
local function parse_field(line)
  local name, rest = match(line, FIELD)
  if name then return lower(name), match(rest, "^(.*[^ \t])") or "" end
end

-- read_head(rd, max) -> { first =, n =, names =, values = } (first: the first line; names are in lower case, lines[i]
-- holds a field as it came); nil, "eof" | "bad" | "too_long", and the bytes that were consumed.
function http1.read_head(rd, max)
  local raw, size, empty = {}, 0, 0
  local head = { n = 0, names = {}, values = {}, lines = {} }
  while true do
    local line, eol = rd:line(max - size)
    if not line then return nil, eol, concat(raw) end
    raw[#raw + 1] = line .. eol
    if eol == "" then return nil, "eof", concat(raw) end
    size = size + #line + #eol
    if size > max then return nil, "too_long", concat(raw) end
    if find(line, "[%z\r]") then return nil, "bad", concat(raw) end
    if not head.first then
      empty = empty + 1
      if line ~= "" then head.first = line elseif empty > EMPTY_MAX then return nil, "bad", concat(raw) end
    elseif line == "" then
      head.raw = raw
      return head
    else
      local name, value = parse_field(line)
      if not name then return nil, "bad", concat(raw) end -- a folded line, too
      local n = head.n + 1
      head.n, head.names[n], head.values[n], head.lines[n] = n, name, value, line
    end
  end
end

-- raw(head) -> its bytes as they came.
function http1.raw(head) return concat(head.raw) end

-- method(head) -> "GET", or nil when the first line is no request's.
function http1.method(head)
  local method, version = match(head.first, "^(%S+) [^%s%c]+ HTTP/1%.(%d)$")
  return version and match(method, TOKEN)
end

-- status(head) -> 200, or nil when the first line is no response's.
function http1.status(head)
  return tonumber(match(head.first, "^HTTP/1%.%d (%d%d%d)$") or match(head.first, "^HTTP/1%.%d (%d%d%d) "))
end

-- Is that a list of codings whose last one, and no other, is "chunked"?
local function ends_chunked(encoding)
  local chunked = false
  for coding in gmatch(encoding .. ",", "([^,]*),") do
    coding = match(coding, "^[ \t]*([^ \t]+)[ \t]*$")
    if not coding or chunked then return false end -- empty, of two words, or behind the last
    chunked = coding == "chunked"
  end
  return chunked
end

-- length(head) -> a number, "chunked", or nil when the head tells none; false when it tells two, or one that is none.
function http1.length(head)
  local length, encoding
  for i = 1, head.n do
    local name, value = head.names[i], head.values[i]
    if name == "content-length" then
      if not match(value, "^%d+$") or #value > SIZE_DIGITS or (length and length ~= value) then return false end
      length = value
    elseif name == "transfer-encoding" then
      encoding = (encoding and encoding .. "," or "") .. lower(value)
    end
  end
  if not encoding then return length and tonumber(length) end
  if length or #encoding > ENCODING_MAX or not match(encoding, "^[%w!#$%%&'*+.^_`|~, \t-]+$") then return false end
  if not ends_chunked(encoding) then return false end
  if match(head.first, "^.* HTTP/1%.0$") or match(head.first, "^HTTP/1%.0 ") then return false end
  return "chunked"
end

-- has(head, name) -> bool
function http1.has(head, name)
  for i = 1, head.n do
    if head.names[i] == name then return true end
  end
  return false
end

-- The lines behind the last chunk: { n =, names =, lines = }; nil, a word and what was consumed and is lost.
local function read_trailers(rd)
  local list = { n = 0, names = {}, lines = {} }
  while true do
    local line, eol = rd:line(8192)
    if not line or eol == "" then return nil, line and "eof" or eol, line end
    if line == "" then return list end
    local name = parse_field(line)
    if not name or find(line, "[%z\r]") or list.n == 100 then return nil, "bad", line .. eol end
    local n = list.n + 1
    list.n, list.names[n], list.lines[n] = n, name, line
  end
end

-- The same to wr, without those that `keep` does not want.
local function move_trailers(rd, wr, keep)
  local trailers, why, raw = read_trailers(rd)
  if not trailers then return nil, why, raw end
  for i = 1, trailers.n do
    if keep(trailers.names[i]) then wr:write(trailers.lines[i], "\r\n") end
  end
  wr:write "\r\n"
  return true
end

-- move_chunked(rd, wr, keep) -> true; nil, word, and the bytes that were consumed and not written. keep(name): is this
-- trailer to go on?
function http1.move_chunked(rd, wr, keep)
  while true do
    local line, eol = rd:line(256)
    if not line then return nil, eol, "" end
    local digits, rest = match(line, "^(%x+)(.*)$")
    if eol == "" then return nil, "eof", line end
    if not digits or #digits > SIZE_DIGITS or not (rest == "" or find(rest, "^[ \t]*;")) or find(rest, "[%z\r]") then
      return nil, "bad", line .. eol
    end
    wr:write(line, "\r\n")
    local size = tonumber(digits, 16)
    if size == 0 then return move_trailers(rd, wr, keep) end
    if size <= 4096 then
      local bytes = rd:exactly(size)
      if not bytes then return nil, "eof", "" end
      wr:write(bytes)
    else
      wr:pass(rd, size)
    end
    line, eol = rd:line(0)
    if not line then return nil, eol == "too_long" and "bad" or eol, "" end
    if eol == "" then return nil, "eof", "" end
    wr:write "\r\n"
  end
end

return http1
