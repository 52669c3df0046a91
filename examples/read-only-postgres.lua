-- Lets clients of PostgreSQL only read: every statement must begin with SELECT, SHOW or a word of transactions. Any
-- other gets an error as the server's own are, and the connection ends.
--
--   penstock -p examples/read-only-postgres.lua :5432 db.internal:5432
--
-- It keeps people from accidents. It is no wall: a SELECT can call a function that writes; give the user of the
-- database no rights to write, too. TLS is not offered, or nothing could be read here.
local harmless = { SELECT = true, SHOW = true, BEGIN = true, COMMIT = true, ROLLBACK = true, END = true }

local SSL_REQUEST, GSS_REQUEST = "\4\210\22\47", "\4\210\22\48"

local function is_harmless(text)
  for statement in text:gmatch "[^;]+" do
    local word = statement:match "^%s*(%a*)"
    if not harmless[word:upper()] and statement:find "%S" then return false end
  end
  return true
end

local function length(n)
  return string.char(math.floor(n / 2 ^ 24) % 256, math.floor(n / 2 ^ 16) % 256, math.floor(n / 256) % 256, n % 256)
end

-- A message of type E: severity, SQLSTATE read_only_sql_transaction, text.
local function refusal(text)
  local body = "SFATAL\0VFATAL\0C25006\0M" .. text .. "\0\0"
  return "E" .. length(#body + 4) .. body
end

return {
  filter = { up = function(conn, rd, wr)
    -- The first messages have no type: requests for encryption, which are answered with "no", and the start.
    while true do
      local head, body = rd:frame { len = "u32be", adjust = -4, max = 10000 }
      if not head then return conn:reset() end
      if body ~= SSL_REQUEST and body ~= GSS_REQUEST then
        wr:write(head, body)
        break
      end
      conn:inject("down", "N")
    end
    while true do
      local head, body = rd:frame { skip = 1, len = "u32be", adjust = -4, max = 2 ^ 24 }
      if not head then
        if body == "too_long" then conn:reset() end
        return
      end
      local kind = head:sub(1, 1)
      local text = kind == "Q" and body:match "^%Z*" or kind == "P" and body:match "^%Z*%z(%Z*)"
      if text and not is_harmless(text) then
        conn:tag("refused", text:sub(1, 60))
        conn:inject("down", refusal "only reading is allowed here")
        return conn:close()
      end
      wr:write(head, body)
    end
  end },
}
