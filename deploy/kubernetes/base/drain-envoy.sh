# Envoy's preStop: take no new connections, let those who have one leave, and wait until nothing is in flight.
#
# The pod has just been taken out of its service, but proxies all over the cluster still send to it for some
# seconds: the listener stays open, and every response asks to close the connection (`connection: close`, GOAWAY).
# The kubelet ends this at terminationGracePeriodSeconds, whatever is still in flight. The image has bash and no curl.
ADMIN_HOST=${ADMIN_HOST:-127.0.0.1}
ADMIN_PORT=${ADMIN_PORT:-9901}
DELAY_S=${DELAY_S:-10}

ask() {  # METHOD PATH
  exec 3<>"/dev/tcp/$ADMIN_HOST/$ADMIN_PORT" || return
  printf '%s %s HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n' "$1" "$2" >&3
  cat <&3
  exec 3>&-
}

in_flight() {
  ask GET '/stats?filter=^http.inference.downstream_rq_active$' | tr -d '\r' |
    sed -n 's/^http\.inference\.downstream_rq_active: //p'
}

ask POST '/drain_listeners?graceful&skip_exit' >/dev/null
sleep "$DELAY_S"
until [ "$(in_flight)" = 0 ]; do sleep 1; done
