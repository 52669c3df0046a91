-- PostgreSQL: the client sends an SSLRequest, the server answers with one byte. Instead of TLS a client may ask for
-- GSSAPI first, which is declined. https://www.postgresql.org/docs/15/protocol-flow.html
local SSL_REQUEST = "\0\0\0\8\4\210\22\47"
local GSS_REQUEST = "\0\0\0\8\4\210\22\48"

local postgres = { client_first = true }

-- Declines GSSAPI: what comes then is as if nothing had been asked.
local function decline(io)
  io:exactly(#GSS_REQUEST)
  if not io:is_quiet() then return nil, "mismatch" end
  io:write "N"
  io.touched = false
  return io:peek(#SSL_REQUEST)
end

function postgres.serve(io)
  local first, why = io:peek(1)
  if first ~= "\0" then return nil, why or "mismatch" end
  local request
  request, why = io:peek(#SSL_REQUEST)
  if request == GSS_REQUEST then request, why = decline(io) end
  if request ~= SSL_REQUEST then return nil, why or "mismatch" end
  io:exactly(#SSL_REQUEST)
  if not io:is_quiet() then return nil, "mismatch" end
  io:write "S"
  return {}
end

function postgres.ask(io)
  io:write(SSL_REQUEST)
  local answer, why = io:exactly(1)
  if answer == "S" then return true end
  if answer == "N" then return nil, "it says that it has no TLS" end
  return nil, answer and "its answer is none to an SSLRequest" or why
end

return postgres
