-- XMPP, of clients and of servers: stream header, features, <starttls/>. RFC 6120 section 5: after it both sides begin
-- the stream anew.
local TLS = "urn:ietf:params:xml:ns:xmpp-tls"
local TAG_MAX = 4096
local FEATURES_MAX, FEATURES_TAGS_MAX = 65536, 500

local xmpp = { client_first = true }

-- The quotation mark that is open behind `text`, when `quote` (or none, nil) was before it.
local function quote_behind(text, quote)
  local at = 1
  while true do
    local i = text:find(quote or "['\"]", at)
    if not i then return quote end
    quote = not quote and text:sub(i, i) or nil
    at = i + 1
  end
end

-- Up to the end of the next tag: what stands before it, and the tag. A ">" may stand in the value of an attribute.
local function read_tag(io, max)
  local parts, left, quote = {}, max, nil
  repeat
    local part, why = io:upto(">", left)
    if not part then return nil, why end
    local start = #parts == 0 and part:find("<", 1, true) or 1
    if #parts == 0 and part:sub(start, start) ~= "<" then return nil, "mismatch" end
    quote = quote_behind(start > 1 and part:sub(start) or part, quote)
    parts[#parts + 1] = part
    left = left - #part - 1
    if left <= 0 then return nil, "too_long" end
  until not quote
  return (table.concat(parts, ">") .. ">"):match "^([^<]*)(<.*)$"
end

-- The attributes of a tag; nil when it is no such tag.
local function attributes(tag, name)
  local rest = tag:match("^<" .. name .. "(.*)>$")
  if not rest or rest:find "^[^%s/]" then return nil end
  local list = {}
  for key, _, value in rest:gmatch "%s([%w:._-]+)%s*=%s*(['\"])(.-)%2" do list[key] = value end
  return list
end

local function is_blank(text) return not text:find "%S" end

-- Can what comes be XML?
local function expect_xml(io)
  local first, why = io:peek(1)
  if not first then return nil, why end
  return first:find "[%s<]" and true or nil, "mismatch"
end

-- The client's stream header, as it was sent, and its attributes.
local function read_header(io)
  local before, tag = read_tag(io, TAG_MAX)
  if not before then return nil, tag end
  local text = before .. tag
  if tag:find "^<%?xml%s" and is_blank(before) then
    before, tag = read_tag(io, TAG_MAX)
    if not before then return nil, tag end
    text = text .. before .. tag
  end
  local header = is_blank(before) and attributes(tag, "stream:stream")
  if not header then return nil, "mismatch" end
  return text, header
end

local function is_served(header)
  return (header.version or ""):find "^1%." and (header.xmlns == "jabber:client" or header.xmlns == "jabber:server")
    and not (header.to or ""):find "[^%w.:_@/\128-\255-]"
end

local function read_starttls(io)
  local before, tag = read_tag(io, TAG_MAX)
  if not before then return nil, tag end
  local starttls = is_blank(before) and attributes(tag, "starttls")
  if not starttls or starttls.xmlns ~= TLS then return nil, "mismatch" end
  if tag:find "/>$" then return true end
  before, tag = read_tag(io, TAG_MAX)
  if not before then return nil, tag end
  return before == "" and tag:find "^</starttls%s*>$" and true or nil, "mismatch"
end

function xmpp.serve(io, _, random)
  local asked, why = expect_xml(io)
  if not asked then return nil, why end
  local text, header = read_header(io)
  if not text then return nil, header end
  if not is_served(header) then return nil, "mismatch" end
  io:write("<?xml version='1.0'?><stream:stream", header.to and (" from='%s'"):format(header.to) or "",
    (" id='%08x' version='1.0' xmlns='%s'"):format(random(2 ^ 31) - 1, header.xmlns),
    " xmlns:stream='http://etherx.jabber.org/streams'><stream:features><starttls xmlns='", TLS,
    "'><required/></starttls></stream:features>")
  asked, why = read_starttls(io)
  if not asked then return nil, why end
  if not io:is_quiet() then return nil, "mismatch" end
  io:write("<proceed xmlns='", TLS, "'/>")
  return { header = text }
end

-- Reads the upstream's header and features. Does it offer TLS?
local function read_features(io)
  local is_xml, why = expect_xml(io)
  if not is_xml then return nil, why end
  local offered, left = false, FEATURES_MAX
  for _ = 1, FEATURES_TAGS_MAX do
    local before, tag = read_tag(io, left)
    if not before then return nil, tag end
    left = left - #before - #tag
    if tag:find "^<%w*:?error[%s/>]" then return nil, "it answers with an error to the stream" end
    local starttls = attributes(tag, "starttls")
    offered = offered or (starttls ~= nil and starttls.xmlns == TLS)
    if tag:find "^</%w*:?features%s*>$" or tag:find "^<%w*:?features%f[%s/].*/>$" then
      return offered or nil, "it does not offer STARTTLS"
    end
  end
  return nil, "its features are too long"
end

function xmpp.ask(io, facts)
  io:write(facts.header)
  local ok, why = read_features(io)
  if not ok then return nil, why end
  io:write("<starttls xmlns='", TLS, "'/>")
  local before, tag = read_tag(io, TAG_MAX)
  if not before then return nil, tag end
  local proceed = attributes(tag, "proceed")
  if proceed and tag:find "/>$" then return true end
  if not proceed then return nil, "it answers to STARTTLS: " .. tag:sub(1, 100) end
  before, tag = read_tag(io, TAG_MAX)
  return before == "" and tag:find "^</proceed%s*>$" and true or nil, "its <proceed> does not end"
end

return xmpp
