"""Sentences that are none of the questions: the agent answers them with the fallback."""

from __future__ import annotations

TRAIN = tuple(
    """
the train leaves from platform nine|I bought a new pair of shoes|my brother plays football every week
please close the window behind you|there is a bird on the roof|we went to the mountains last summer
the soup needs a little more salt|she painted the door last monday|can you drive a truck|how tall is the tower
what do elephants eat|when was the war|who wrote this book|how far is the moon|what is the meaning of life
the river runs to the sea|he forgot his umbrella at home|my computer is very slow today
the children are playing in the garden|I would like to fly to the stars|where did you put my keys
is there milk in the fridge|tomorrow we will visit my uncle|a red car stopped in front of the house
the doctor said I should rest|this chair is not comfortable|how many people live in china
what is the largest ocean|which animal runs fastest|why do cats sleep so much|do you believe in ghosts
can I have a glass of water|the meeting starts in ten minutes|I lost my phone on the bus
please turn down the radio|the teacher asked a hard question|it rained all through the night|my shoes are wet
they built a bridge over the valley|she can play the violin|we need eggs flour and sugar
he works at the hospital|the film was much too long|what did you dream about|who won the game last night
is it far to the station|when is your birthday|how do I cook rice|which bus goes to the airport
the answer is in the book|a wolf ran across the field|this letter is for my mother
the lamp on the desk is broken|I can not hear you|nobody knows where he went|open the box and look inside
the cake smells wonderful|did you see the fire|my neighbour has three dogs|put the plates on the table
what happened to the old theatre|have you ever been to africa|the clock on the wall stopped
we sailed around the island|every student has a number|give me back my pencil|what is a black hole
how does a car work|where do penguins live|who painted this picture|turn left at the corner
I am hungry and tired|the winter was long and cold|write your address here|it takes two hours by train
the market is full of people|my favorite food is pizza|can you sing for me|how many stars are there
what is seven times eight|what is ninety minus four|tell me about dinosaurs|tell me a long story
tell me the news|what is the capital of norway|what is the capital of egypt|what color is an elephant
what color is my shirt|what does a cow say|what is the opposite of happy|how many wheels does a bicycle have
do you sell shoes|how much is the house|the pilot landed the plane safely|a cold wind blows from the north
we planted seven trees this spring|my cousin lives near the lake|the library closes early today
I cannot find my glasses|the horse ran over the hill|please write me a letter|how heavy is an elephant
where does the river end|why is the sea so deep|which road leads to the castle|who built the pyramids
when will the rain stop|what time is it now|can you drive a car|do you play tennis|are there fish in the pond
is the soup still warm|how long is the bridge|what is five minus two|what is two times three
what is the capital of spain|what is the capital of canada|what color is a tomato|how many days are in a month
how much is the milk|what does a horse say|what is the opposite of fast|do you sell flowers|tell me a secret
sing a song|the butter is on the table|our flight was delayed again|he repaired the old radio
they danced until midnight|the baby is sleeping now|my pencil is under the desk|winter comes after autumn
she speaks four languages|turn on the kitchen light|this road is closed|the moon is very bright tonight
he drank a glass of juice|I will call you tomorrow|the farmer has many sheep|do not forget your coat
the window is open|it is too dark in here|look at the big ship|yes|no|maybe|I do not know|okay|well, let me see
that is interesting|really|just a moment please|what did you say
""".strip()
    .replace("\n", "|")
    .split("|")
)

# Never trained on.
HELD_OUT = tuple(
    """
the ship arrived late in the harbour|my sister bought a green bicycle|who invented the telephone
please bring me the newspaper|why is the ocean salty|he jumped over the wooden fence
I need a ticket to the museum|what do you think about politics|the painter needs a longer ladder
how deep is the ocean|what is nine minus three|what is the capital of sweden|which animal has the longest neck
please open the garage|my uncle collects old coins|what color is a strawberry|how many wheels does a truck have
when does the concert begin|the bridge was built of stone|do you sell umbrellas|why are leaves falling
she lost her golden ring|can you read this letter|the dentist is on holiday
""".strip()
    .replace("\n", "|")
    .split("|")
)
