package ranking
import ("testing";"os";"fmt";"unsafe";"context";"time")
func load[T any](f string) []T { b,err:=os.ReadFile("/tmp/retrieval/m/"+f); if err!=nil {panic(err)}; var t T; return unsafe.Slice((*T)(unsafe.Pointer(&b[0])),len(b)/int(unsafe.Sizeof(t))) }
func TestZZALS(t *testing.T){
 st:=load[int64]("start"); m:=&Matrix{Rows:100000,Cols:20000,Index:load[int32]("index"),Value:load[float32]("value")}
 for _,s:=range st {m.Start=append(m.Start,int(s))}
 s:=time.Now()
 o:=ALSOptions{Iterations:3,Regularization:.05,Alpha:2,Seed:3,Exact:os.Getenv("EXACT")!="",Report:func(p ALSProgress){fmt.Println(p,time.Since(s))}}
 fmt.Println("start")
 c0:=cpuAll()
 a,err:=TrainALS(context.Background(),m,o)
 if err!=nil {t.Fatal(err)}
 fmt.Println("cpu",cpuAll()-c0, "wall",time.Since(s))
 x,_:=NewIndex(a.Items,64)
 c0=cpuAll(); s=time.Now()
 lists,err:=x.SearchBatch(Batch{Queries:a.Users,K:10,Seen:m})
 fmt.Println("batch",err,len(lists),cpuAll()-c0,time.Since(s),100000/time.Since(s).Seconds())
 f,_:=NewFoldIn(a)
 var v []float32
 c0=cpuAll()
 for u:=range 300 { i,val:=m.Row(u); v,_=f.User(v,i,val) }
 fmt.Println("foldin",(cpuAll()-c0)/300)
}
