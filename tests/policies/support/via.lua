-- Sends everybody through a proxy; tells the upstream who it is.
return {
  connect = function(conn)
    if conn.client.port == 1 then return { "10.0.0.9:25", proxy = "v1" } end
    return { "mail.example:25", via = { "socks5://10.0.0.1", "http://10.0.0.2" } }
  end,
  failed = function(conn, dest, err, detail) conn.log.info("%s %s %s", dest, err, detail) end,
}
