// An executor on mesos-go, in protobuf: its task runs until it is killed, and what its framework says it says back.
package main

import (
	"context"
	"log"
	"time"

	"github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/executor"
	"github.com/mesos/mesos-go/api/v1/lib/executor/calls"
	"github.com/mesos/mesos-go/api/v1/lib/executor/config"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli/httpexec"
	"github.com/pborman/uuid"
)

func main() {
	settings, err := config.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	client := httpcli.New(
		httpcli.Endpoint("http://"+settings.AgentEndpoint+"/api/v1/executor"),
		httpcli.Codec(codecs.ByMediaType[codecs.MediaTypeProtobuf]),
	)
	who := executor.CallOptions{calls.Framework(settings.FrameworkID), calls.Executor(settings.ExecutorID)}
	sender := calls.SenderWith(httpexec.NewSender(client.Send), who...)
	subscriber := calls.SenderWith(httpexec.NewSender(client.Send, httpcli.Close(true)), who...)
	tasks, updates := map[string]mesos.TaskInfo{}, map[string]executor.Call_Update{}

	send := func(call *executor.Call) {
		if err := calls.SendNoData(context.Background(), sender, calls.NonStreaming(call)); err != nil {
			log.Print(call.Type, ": ", err) // an update is sent again on subscribing
		}
	}
	update := func(id mesos.TaskID, state mesos.TaskState) {
		number := uuid.NewRandom()
		status := mesos.TaskStatus{
			TaskID: id, State: &state, UUID: number, Source: mesos.SOURCE_EXECUTOR.Enum(),
			ExecutorID: &mesos.ExecutorID{Value: settings.ExecutorID},
		}
		call := calls.Update(status)
		updates[string(number)] = *call.Update
		send(call)
	}
	obey := func(event *executor.Event) (over bool) {
		switch event.GetType() {
		case executor.Event_LAUNCH:
			task := event.GetLaunch().GetTask()
			tasks[task.TaskID.Value] = task
			update(task.TaskID, mesos.TASK_RUNNING)
		case executor.Event_KILL:
			update(event.GetKill().GetTaskID(), mesos.TASK_KILLED)
		case executor.Event_ACKNOWLEDGED:
			delete(tasks, event.GetAcknowledged().GetTaskID().Value)
			delete(updates, string(event.GetAcknowledged().GetUUID()))
		case executor.Event_MESSAGE:
			send(calls.Message(event.GetMessage().GetData()))
		}
		return event.GetType() == executor.Event_SHUTDOWN
	}

	for {
		var unheardTasks []mesos.TaskInfo
		for _, task := range tasks {
			unheardTasks = append(unheardTasks, task)
		}
		var unheard []executor.Call_Update
		for _, each := range updates {
			unheard = append(unheard, each)
		}
		subscribe := calls.NonStreaming(calls.Subscribe(unheardTasks, unheard))
		stream, err := subscriber.Send(context.Background(), subscribe)
		for err == nil {
			var event executor.Event
			if err = stream.Decode(&event); err == nil && obey(&event) {
				return
			}
		}
		log.Print("not subscribed: ", err)
		if stream != nil {
			stream.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
}
