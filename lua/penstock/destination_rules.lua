-- Which destinations a proxy may lead its clients to: rules by name, network and port. Addresses that only this host or
-- its own networks can reach need a rule that names their network, whatever name leads there.
local cidr = require "penstock.cidr"
local concat, find, format, lower, match, sub = table.concat, string.find, string.format, string.lower, string.match,
  string.sub
local byte, ipairs, tonumber, type = string.byte, ipairs, tonumber, type

local rules = {}

local ADDRESSES_MAX = 8 -- of one name
local RESOLVE_S, SECOND_FAMILY_S = 5, 0.05
local EXAMPLES = '"www.example.com:443", "*.example.com:443", "10.0.0.0/8:22", "[2001:db8::/32]:8000-8010", "*:443"'

rules.EXAMPLES = EXAMPLES

-- What is not reached by way of the open internet, by kind.
local special = cidr.new {
  { "loopback", { "127.0.0.0/8", "::1" } },
  { "link-local", { "169.254.0.0/16", "fe80::/10" } },
  { "private", { "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10" } },
  { "multicast", { "224.0.0.0/4", "ff00::/8" } },
  { "reserved", { "0.0.0.0/8", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", "::/96", "64:ff9b:1::/48", "100::/64",
    "2001::/32" } },
}
local NAT64, SIX_TO_FOUR = "\0\100\255\155" .. ("\0"):rep(8), "\32\2"

-- The IPv4 address that a translator or a relay on the way makes of this one, or nil.
local function inner_address(ip)
  local bytes = cidr.bytes(ip)
  if not bytes or #bytes ~= 16 then return nil end
  if sub(bytes, 1, 12) == NAT64 then return format("%d.%d.%d.%d", byte(bytes, 13, 16)) end
  if sub(bytes, 1, 2) == SIX_TO_FOUR then return format("%d.%d.%d.%d", byte(bytes, 3, 6)) end
end

-- special_kind(ip) -> "loopback", "private", …, or nil for an address of the open internet.
function rules.special_kind(ip)
  local inner = inner_address(ip)
  return special(ip) or (inner and special(inner))
end

-- ---- hosts ----

-- name(text) -> in lower case and without the root's dot; nil when it is none.
function rules.name(text)
  local name = match(lower(text), "^(.-)%.?$")
  if name == "" or #name > 253 or find(name, "[^%w_.-]") or find(name, "..", 1, true) or find(name, "^%.") then
    return nil
  end
  for label in name:gmatch "[^.]+" do
    if #label > 63 then return nil end
  end
  return name
end

-- ---- reading rules ----

local function fail(...) error(format(...), 0) end

-- "443", "80-90" or "*" -> first, last
local function parse_ports(text, ports)
  if ports == "*" then return 1, 65535 end
  local first, last = match(ports, "^(%d+)%-(%d+)$")
  if not first then first, last = match(ports, "^%d+$"), match(ports, "^%d+$") end
  first, last = tonumber(first), tonumber(last)
  if not first or first < 1 or last > 65535 or first > last then
    fail('"%s": the port is a number from 1 to 65535, a range "80-90", or "*" for all', text)
  end
  return first, last
end

-- "host:ports" -> host, ports; "[2001:db8::/32]:443" -> "2001:db8::/32", "443"
local function split(text)
  local host, ports = match(text, "^%[([^%[%]]*)%]:([^:]*)$")
  if not host then host, ports = match(text, "^([^:%[%]]*):([^:]*)$") end
  if host then return host, ports end
  if find(text, "^[^%[%]]*:[^%[%]]*:") then
    fail('"%s": an IPv6 network stands in brackets: "[2001:db8::/32]:443"', text)
  end
  fail('"%s" has no port: write "%s:443", or "%s:*" for all ports', text, text, text)
end

local function add_host(group, text, host)
  if host == "*" then
    group.all = true
  elseif find(host, "[/:]") or find(host, "^[%d.]+$") then
    local bytes, why = cidr.parse(host)
    if not bytes then fail("%s", why) end
    group.networks[#group.networks + 1] = host
  else
    local suffix = match(host, "^%*(%..+)$")
    local name = rules.name(suffix and sub(suffix, 2) or host)
    if not name then fail('"%s" is no destination; write %s', text, EXAMPLES) end
    if suffix then group.below["." .. name] = true else group.exact[name] = true end
  end
end

-- Rules for the same ports are looked up together.
local function group_of(groups, first, last)
  local key = first .. "-" .. last
  local group = groups[key]
  if not group then
    group = { first = first, last = last, exact = {}, below = {}, networks = {} }
    groups[key], groups[#groups + 1] = group, group
  end
  return group
end

local function has_name(group, name)
  if group.all or group.exact[name] then return true end
  local dot = find(name, ".", 2, true)
  while dot do
    if group.below[sub(name, dot)] then return true end
    dot = find(name, ".", dot + 1, true)
  end
  return false
end

-- ---- deciding ----

-- Does a group for this port say yes?
local function some_group(groups, port, says)
  for i = 1, #groups do
    local group = groups[i]
    if port >= group.first and port <= group.last and says(group) then return true end
  end
  return false
end

-- The addresses of a name, IPv4 first; nil, "dns" or "timeout". An answer for IPv6 alone is not waited for long.
local function resolve(ps, name)
  local other = ps.spawn(function() return ps.dns.resolve(name, "AAAA", { timeout = RESOLVE_S }) end)
  local list, why = ps.dns.resolve(name, "A", { timeout = RESOLVE_S })
  local more = other:wait(list and SECOND_FAMILY_S or RESOLVE_S)
  other:cancel()
  if not list and not more then return nil, why end
  local all = {}
  for _, part in ipairs { list or {}, more or {} } do
    for _, ip in ipairs(part) do all[#all + 1] = ip end
  end
  return all
end

local function destination(ip, port)
  local bytes = cidr.bytes(ip)
  if not bytes or #bytes == 16 then return format("[%s]:%d", ip, port) end
  local a, b, c, d = byte(bytes, 1, 4)
  return format("%d.%d.%d.%d:%d", a, b, c, d, port)
end

-- new(list) -> find(ps, host, port): the destinations that may be dialled for this host, which is a name or an address;
-- nil, "not_allowed", "private", "dns", "timeout" or "bad_name", and for "private" a sentence. It may wait. `list` is a
-- list of rules, or "any". Raises, without position, what is wrong with one.
function rules.new(list)
  local groups = {}
  if list == "any" then list = { "*:*" } end
  for _, text in ipairs(list) do
    if type(text) ~= "string" then fail("a destination is a text, such as %s", EXAMPLES) end
    local host, ports = split(text)
    add_host(group_of(groups, parse_ports(text, ports)), text, host)
  end
  for _, group in ipairs(groups) do group.holds = cidr.new { { true, group.networks } } end

  local function by_network(ip, port)
    return some_group(groups, port, function(group) return group.holds(ip) end)
  end

  local function find_address(ip, port)
    if by_network(ip, port) then return { destination(ip, port) } end
    if not some_group(groups, port, function(group) return group.all end) then return nil, "not_allowed" end
    local kind = rules.special_kind(ip)
    if not kind then return { destination(ip, port) } end
    return nil, "private", format("%s is a %s address, and no rule names its network", ip, kind)
  end

  return function(ps, host, port)
    if cidr.bytes(host) then return find_address(host, port) end
    local name = rules.name(host)
    if not name then return nil, "bad_name" end
    local named = some_group(groups, port, function(group) return has_name(group, name) end)
    -- A name that no rule can let through is not even looked up: its lookup would carry words out.
    if not named and not some_group(groups, port, function(group) return #group.networks > 0 end) then
      return nil, "not_allowed"
    end
    local addresses, why = resolve(ps, name)
    if not addresses then return nil, why end
    local good, bad = {}, {}
    for _, ip in ipairs(addresses) do
      local kind = rules.special_kind(ip)
      if by_network(ip, port) or (named and not kind) then
        if #good < ADDRESSES_MAX then good[#good + 1] = destination(ip, port) end
      elseif named then
        bad[#bad + 1] = format("%s (%s)", ip, kind)
      end
    end
    if #good > 0 then return good end
    if not named then return nil, "not_allowed" end
    return nil, "private", format("%s leads to %s, and no rule names that network", name, concat(bad, ", "))
  end
end

return rules
