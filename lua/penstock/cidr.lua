-- Networks by their prefixes. Pure: texts in, bytes and decisions out.
local byte, char, find, format, gsub, match, sub = string.byte, string.char, string.find, string.format, string.gsub,
  string.match, string.sub
local floor, tonumber, tostring, type = math.floor, tonumber, tostring, type

local cidr = {}
local MAPPED = ("\0"):rep(10) .. "\255\255"

-- "10.1.2.3" -> 4 bytes; with `short` also "10" and "10.1", filled up by zeros.
local function parse_v4(text, short)
  local bytes = {}
  for part in (text .. "."):gmatch "([^.]*)%." do
    local n = match(part, "^%d%d?%d?$") and tonumber(part)
    if not n or n > 255 or (#part > 1 and sub(part, 1, 1) == "0") or #bytes == 4 then return nil end
    bytes[#bytes + 1] = n
  end
  if #bytes < 4 and not short then return nil end
  for i = #bytes + 1, 4 do bytes[i] = 0 end
  return char(bytes[1], bytes[2], bytes[3], bytes[4])
end

-- "2001:db8" -> 4 bytes, or nil; "" -> ""
local function parse_groups(text)
  if text == "" then return "" end
  local bytes = ""
  for part in (text .. ":"):gmatch "([^:]*):" do
    if not match(part, "^%x%x?%x?%x?$") then return nil end
    local n = tonumber(part, 16)
    bytes = bytes .. char(floor(n / 256), n % 256)
  end
  return bytes
end

-- "2001:db8::1" -> 16 bytes
local function parse_v6(text)
  local head, dotted = match(text, "^(.*:)([^:]*%.[^:]*)$")
  if head then
    local v4 = parse_v4(dotted)
    if not v4 then return nil end
    text = format("%s%x:%x", head, byte(v4, 1) * 256 + byte(v4, 2), byte(v4, 3) * 256 + byte(v4, 4))
  end
  local left, right = match(text, "^(.-)::(.*)$")
  if not left then
    local bytes = parse_groups(text)
    return bytes and #bytes == 16 and bytes or nil
  end
  left, right = parse_groups(left), parse_groups(right)
  if not left or not right or #left + #right > 14 then return nil end
  return left .. ("\0"):rep(16 - #left - #right) .. right
end

-- bytes(ip) -> 4 or 16 bytes, or nil. An IPv4-mapped IPv6 address is the IPv4 one.
function cidr.bytes(ip)
  if not find(ip, ":", 1, true) then return parse_v4(ip) end
  local bytes = parse_v6((gsub(ip, "%%.*$", "")))
  if bytes and sub(bytes, 1, 12) == MAPPED then return sub(bytes, 13) end
  return bytes
end

-- The first `bits` bits, the rest zero up to the next byte.
local function prefix(bytes, bits)
  local whole = floor(bits / 8)
  local odd = bits - whole * 8
  if odd == 0 then return sub(bytes, 1, whole) end
  local step = 2 ^ (8 - odd)
  local last = byte(bytes, whole + 1)
  return sub(bytes, 1, whole) .. char(last - last % step)
end

-- As a person would have meant it.
local function canonical(bytes, bits)
  local full = prefix(bytes, bits)
  full = full .. ("\0"):rep(#bytes - #full)
  if #bytes == 4 then
    local a, b, c, d = byte(full, 1, 4)
    return format("%d.%d.%d.%d/%d", a, b, c, d, bits)
  end
  local groups = {}
  for i = 1, 16, 2 do groups[#groups + 1] = format("%x", byte(full, i) * 256 + byte(full, i + 1)) end
  return format("%s/%d", table.concat(groups, ":"), bits)
end

-- parse(text) -> bytes, bits; "unix" -> "unix", 0; or nil and what is wrong. "10/8" is 10.0.0.0/8.
function cidr.parse(text)
  if type(text) ~= "string" then return nil, "a network is a text: \"10.0.0.0/8\", not a " .. type(text) end
  if text == "unix" then return "unix", 0 end
  local address, length = match(text, "^([^/]*)/(%d+)$")
  if find(text, "/", 1, true) and not address then
    return nil, format('"%s": a number stands behind the slash', text)
  end
  address = address or text
  local bytes, most, shift
  if find(address, ":", 1, true) then
    bytes, most, shift = parse_v6(address), 128, 0
    if bytes and sub(bytes, 1, 12) == MAPPED and (not length or tonumber(length) >= 96) then
      bytes, most, shift = sub(bytes, 13), 32, 96
    end
  else
    bytes, most, shift = parse_v4(address, length ~= nil), 32, 0
  end
  if not bytes then
    local short = not length and parse_v4(address, true)
    return nil, format('"%s" is no address or network%s', text, short and
      format('; the network is "%s/%d"', text, 8 * (select(2, gsub(address, "%.", "")) + 1)) or
      ': write "192.0.2.1", "10.0.0.0/8", "2001:db8::/32" or "unix"')
  end
  local bits = length and tonumber(length) - shift or most
  if bits > most then return nil, format('"%s": the prefix has at most %d bits', text, most + shift) end
  local kept = prefix(bytes, bits)
  if kept .. ("\0"):rep(#bytes - #kept) ~= bytes then
    return nil, format('"%s" has bits behind its prefix; the network is "%s"', text, canonical(bytes, bits))
  end
  return bytes, bits
end

-- Lengths of the prefixes there are, the longest first.
local function lengths_of(tables)
  local list = {}
  for bits in pairs(tables) do list[#list + 1] = bits end
  table.sort(list, function(a, b) return a > b end)
  return list
end

-- new(lists) -> lookup(ip) -> value of the longest prefix that holds it, or nil. `lists` is a list of
-- { value, networks }. Raises, without position, what is wrong.
function cidr.new(lists)
  local families, unix = { [4] = {}, [16] = {} }, nil
  local function add(tables, bits, key, value, text)
    tables[bits] = tables[bits] or {}
    local there = tables[bits][key]
    if there ~= nil and there ~= value then error(format('"%s" is in both lists', text), 0) end
    tables[bits][key] = value
  end
  for _, entry in ipairs(lists) do
    for _, text in ipairs(entry[2]) do
      local bytes, bits = cidr.parse(text)
      if not bytes then error(bits, 0) end
      if bytes == "unix" then
        if unix ~= nil and unix ~= entry[1] then error('"unix" is in both lists', 0) end
        unix = entry[1]
      else
        add(families[#bytes], bits, prefix(bytes, bits), entry[1], tostring(text))
      end
    end
  end
  local sorted = { [4] = lengths_of(families[4]), [16] = lengths_of(families[16]) }
  return function(ip)
    if ip == "unix" then return unix end
    local bytes = cidr.bytes(ip)
    if not bytes then return nil end
    local tables, lengths = families[#bytes], sorted[#bytes]
    for i = 1, #lengths do
      local bits = lengths[i]
      local value = tables[bits][prefix(bytes, bits)]
      if value ~= nil then return value end
    end
    return nil
  end
end

return cidr
