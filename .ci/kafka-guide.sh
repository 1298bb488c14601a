#!/usr/bin/env bash
# kafka-guide.sh CHECKOUT DIR JARS: runs the commands of docs/GUIDE/11-live.md against a broker of its own, started from a
# directory of jars, with scripts that stand for those of Kafka's distribution.
set -euo pipefail
checkout=$(cd "$1" && pwd)
mkdir -p "$2"
dir=$(cd "$2" && pwd)
jars=$(cd "$3" && pwd)
read -r port controller < <(python3 - <<'END'
import socket
a, b = socket.socket(), socket.socket()
a.bind(("127.0.0.1", 0)); b.bind(("127.0.0.1", 0))
print(a.getsockname()[1], b.getsockname()[1])
END
)
mkdir -p "$dir/bin" "$dir/kafka"
script() {
	printf '#!/bin/sh\nexec java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "%s/*" %s "$@"\n' "$jars" "$2" >"$dir/bin/$1"
	chmod +x "$dir/bin/$1"
}
script kafka-topics.sh org.apache.kafka.tools.TopicCommand
script kafka-console-producer.sh org.apache.kafka.tools.ConsoleProducer
script kafka-console-consumer.sh org.apache.kafka.tools.consumer.ConsoleConsumer
script kafka-get-offsets.sh org.apache.kafka.tools.GetOffsetShell
script kafka-consumer-groups.sh org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
script kafka-storage.sh kafka.tools.StorageTool
cat >"$dir/kafka/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/kafka/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
END
"$dir/bin/kafka-storage.sh" format --standalone -t AAAAAAAAAAAAAAAAAAAAAA -c "$dir/kafka/server.properties" >"$dir/kafka/format.log"
java -Xmx512m -XX:+UseSerialGC -cp "$jars/*" kafka.Kafka "$dir/kafka/server.properties" >"$dir/kafka/server.log" 2>&1 &
broker=$!
trap 'kill -9 $broker 2>/dev/null || true' EXIT
for _ in $(seq 300); do
	if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
	sleep 0.1
done
BROKER=127.0.0.1:$port PATH=$dir/bin:$PATH "$checkout/.ci/doc-commands.sh" "$checkout" "$dir/run" docs/GUIDE/11-live.md
