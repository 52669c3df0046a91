-- IMAP: greeting, STARTTLS. RFC 9051: both sides forget after it what was said before.
local LINE_MAX = 8192
local COMMANDS_MAX = 20
local UNTAGGED_MAX = 100
local CAPABILITIES = "IMAP4rev1 STARTTLS LOGINDISABLED"

local imap = {}

-- One command; returns true once TLS has been granted, false to go on, or nil and a word.
local function answer(io, tag, command, arguments)
  if command == "STARTTLS" and arguments == "" then
    if not io:is_quiet() then return nil, "mismatch" end
    io:write(tag, " OK Begin TLS negotiation now\r\n")
    return true
  elseif command == "CAPABILITY" then
    io:write("* CAPABILITY ", CAPABILITIES, "\r\n", tag, " OK Done\r\n")
  elseif command == "NOOP" then
    io:write(tag, " OK Done\r\n")
  elseif command == "ID" then
    io:write("* ID NIL\r\n", tag, " OK Done\r\n")
  elseif command == "LOGOUT" then
    io:write("* BYE\r\n", tag, " OK Done\r\n")
    return nil, "eof"
  elseif arguments:find "{%d+%+}$" then -- bytes follow that look like commands
    return nil, "mismatch"
  else
    io:write(tag, " NO [PRIVACYREQUIRED] STARTTLS first\r\n")
  end
  return false
end

function imap.serve(io)
  io:write("* OK [CAPABILITY ", CAPABILITIES, "] Ready\r\n")
  for _ = 1, COMMANDS_MAX do
    local line, why = io:line(LINE_MAX)
    if not line then return nil, why end
    local tag, command, arguments = line:match "^([^%s%c(){%%*\"\\+]+) (%a+)%s*(.-)$"
    if not tag or #tag > 64 or line:find "[%z\1-\8\10-\31\127]" then return nil, "mismatch" end
    local granted
    granted, why = answer(io, tag, command:upper(), arguments)
    if granted then return {} end
    if granted == nil then return nil, why end
  end
  return nil, "too_long"
end

function imap.ask(io)
  local line, why = io:line(LINE_MAX)
  if not line then return nil, why end
  if not line:upper():find "^%* OK%f[%W]" then return nil, "it does not greet with OK: " .. line:sub(1, 100) end
  io:write "p1 STARTTLS\r\n"
  for _ = 1, UNTAGGED_MAX do
    line, why = io:line(LINE_MAX)
    if not line then return nil, why end
    if line:upper():find "^P1 OK%f[%W]" then return true end
    if not line:find "^%* " then return nil, "it answers to STARTTLS: " .. line:sub(1, 100) end
  end
  return nil, "it does not answer to STARTTLS"
end

return imap
