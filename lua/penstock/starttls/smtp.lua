-- SMTP: greeting, EHLO, STARTTLS. RFC 3207: both sides forget after it what was said before, so that the client's EHLO
-- inside TLS is the one that counts.
local LINE_MAX = 1000
local COMMANDS_MAX = 20
local REPLY_LINES_MAX = 100

local smtp = {}

local answers = {
  NOOP = "250 2.0.0 OK\r\n",
  RSET = "250 2.0.0 OK\r\n",
  QUIT = "221 2.0.0 Bye\r\n",
}

-- One command; returns true once TLS has been granted, false to go on, or nil and a word.
local function answer(io, verb, argument, state)
  if verb == "EHLO" and argument ~= "" then
    state.ehlo = argument
    io:write("250-", state.name, "\r\n250 STARTTLS\r\n")
  elseif verb == "HELO" and argument ~= "" then
    io:write("250 ", state.name, "\r\n")
  elseif verb == "STARTTLS" then
    if argument ~= "" then
      io:write "501 5.5.4 No parameters, please\r\n"
    elseif not state.ehlo then
      io:write "503 5.5.1 EHLO first\r\n"
    elseif not io:is_quiet() then
      return nil, "mismatch"
    else
      io:write "220 2.0.0 Ready to start TLS\r\n"
      return true
    end
  else
    io:write(answers[verb] or "530 5.7.0 Must issue a STARTTLS command first\r\n")
    if verb == "QUIT" then return nil, "eof" end
  end
  return false
end

function smtp.serve(io, options)
  local state = { name = options.name or "localhost" }
  io:write("220 ", state.name, " ESMTP\r\n")
  for _ = 1, COMMANDS_MAX do
    local line, why = io:line(LINE_MAX)
    if not line then return nil, why end
    local verb, argument = line:match "^(%a+)%s*(.-)%s*$"
    if not verb or line:find "[%z\1-\8\10-\31\127]" then return nil, "mismatch" end
    local granted
    granted, why = answer(io, verb:upper(), argument, state)
    if granted then return { ehlo = state.ehlo } end
    if granted == nil then return nil, why end
  end
  return nil, "too_long"
end

-- Reads a reply of one or more lines: its code and its lines.
local function read_reply(io)
  local lines, first = {}, nil
  for i = 1, REPLY_LINES_MAX do
    local line, why = io:line(LINE_MAX)
    if not line then return nil, why end
    local code, more, text = line:match "^(%d%d%d)([ -]?)(.*)$"
    if not code or code ~= (first or code) then return nil, "what it says is no reply of SMTP" end
    first, lines[i] = code, text
    if more ~= "-" then return code, lines end
  end
  return nil, "its reply is too long"
end

-- One step of the dialogue: true when the reply has the code that it should have.
local function expect(io, code, step)
  local got, lines = read_reply(io)
  if got == code then return lines end
  return nil, got and ("it answers %s to %s: %s"):format(got, step, lines[1]) or lines
end

function smtp.ask(io, facts)
  local ok, why = expect(io, "220", "the connection")
  if not ok then return nil, why end
  io:write("EHLO ", facts.ehlo, "\r\n")
  ok, why = expect(io, "250", "EHLO")
  if not ok then return nil, why end
  local offered = false
  for i = 2, #ok do offered = offered or ok[i]:upper():find "^STARTTLS%s*$" ~= nil end
  if not offered then return nil, "it does not offer STARTTLS" end
  io:write "STARTTLS\r\n"
  ok, why = expect(io, "220", "STARTTLS")
  return ok and true, why
end

return smtp
